#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rmesh_tests::fuzz::run("plane_too_big", bytes));
