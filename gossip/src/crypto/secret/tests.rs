use alloc::format as text;
use alloc::string::ToString;

use proptest::prelude::*;

use super::*;
use crate::crypto::testing::hex;

const GENERATED: &str = "rmesh1-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq";

fn counting() -> [u8; 32] {
    core::array::from_fn(|index| index as u8)
}

#[test]
fn generated_secret_is_its_32_bytes() {
    assert_eq!(*generate(&counting()), GENERATED);
    for ending in ["", "\n", "\r\n"] {
        let secret = parse(&text!("{GENERATED}{ending}")).unwrap();
        assert!(!secret.is_passphrase());
        assert!(secret.into_key() == Key::new(counting()));
    }
}

#[test]
fn mistyped_secret_is_never_a_passphrase() {
    let cases = [
        (GENERATED.to_uppercase(), SecretError::Prefix),
        (text!(" {GENERATED}"), SecretError::Prefix),
        (GENERATED.replace('-', ""), SecretError::Prefix),
        (GENERATED.replace("rmesh1-", ""), SecretError::Prefix),
        (GENERATED.replace('q', "8"), SecretError::Character(4)),
        (GENERATED.replace('q', "é"), SecretError::Character(4)),
        (GENERATED.replace('q', "Q"), SecretError::Character(4)),
        (text!("{GENERATED}a"), SecretError::Length(53)),
        (text!("{GENERATED}\n\n"), SecretError::Length(53)),
        ("rmesh1-".into(), SecretError::Length(0)),
        (text!("{}b", &GENERATED[..58]), SecretError::LastCharacter),
    ];
    for (typed, expected) in cases {
        assert_eq!(parse(&typed), Err(expected), "{typed:?}");
    }
}

#[test]
fn passphrases_have_bounds() {
    assert_eq!(parse(""), Err(SecretError::Empty));
    assert_eq!(parse("\n"), Err(SecretError::Empty));
    assert_eq!(parse("fifteen letters"), Err(SecretError::TooShort(15)));
    assert!(parse("sixteen letters!\n").unwrap().is_passphrase());
    assert!(parse(&"x".repeat(256)).unwrap().is_passphrase());
    assert_eq!(parse(&"x".repeat(257)), Err(SecretError::TooLong(257)));
    assert!(
        SecretError::TooShort(15)
            .to_string()
            .contains("rmesh secret"),
        "the message helps"
    );
}

/// Computed by another implementation of Argon2id. If this changes, no member with a passphrase
/// finds the others any more.
#[test]
fn passphrase_is_stretched_to_these_bytes() {
    let key = parse("correct horse battery staple\n").unwrap().into_key();
    let expected = "78a942f5b3a744409d3153323fcba80ac32909a7786e17db743568766e8e3fc9";
    assert_eq!(key.bytes()[..], hex(expected));
    assert!(parse(&format(&key)).unwrap().into_key() == key);
}

#[test]
fn no_secret_is_shown() {
    for typed in [GENERATED, "a passphrase of some length"] {
        assert_eq!(text!("{:?}", parse(typed).unwrap()), "SecretText(…)");
    }
}

#[test]
fn nothing_that_holds_a_secret_shows_it() {
    use crate::api::SessionKeys;
    use crate::crypto::{HandshakeSetup, Role};
    use rmesh_wire::PeerId;
    use rmesh_wire::handshake::Cipher;

    let key = Key::new([0xa7; 32]);
    let session = SessionKeys {
        peer: PeerId([0; 16]),
        local_index: 1,
        remote_index: 2,
        cipher: Cipher::ChaCha20Poly1305,
        seal_key: key.clone(),
        open_key: key.clone(),
    };
    let setup = HandshakeSetup {
        role: Role::Initiator,
        static_key: &key,
        psk: &key,
        prologue: &[],
        randomness: key.clone(),
    };
    let generated = parse(&format(&key)).unwrap();
    let passphrase = parse("a7a7a7a7a7a7a7a7").unwrap();
    let shown = text!("{key:?} {session:?} {setup:?} {generated:?} {passphrase:?}");
    for form in ["a7", "167", "0xa7"] {
        assert!(!shown.contains(form), "{form}: {shown}");
    }
}

proptest! {
    #[test]
    fn every_key_has_one_text(bytes: [u8; 32]) {
        let text = generate(&bytes);
        prop_assert_eq!(text.len(), 59);
        prop_assert!(parse(&text).unwrap().into_key() == Key::new(bytes));
        prop_assert_eq!(format(&Key::new(bytes)), text);
    }

    #[test]
    fn parsing_is_total(typed in ".{0,80}", encoded in "[a-z2-7]{50,54}") {
        let _ = parse(&typed);
        if let Ok(secret) = parse(&text!("rmesh1-{encoded}")) {
            let key = secret.into_key();
            prop_assert_eq!(&*format(&key), &text!("rmesh1-{}", encoded));
        }
    }
}
