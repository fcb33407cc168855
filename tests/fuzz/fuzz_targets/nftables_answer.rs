#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rmesh_tests::fuzz::run("nftables_answer", bytes));
