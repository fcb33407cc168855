//! Takes secrets out of what is shown, whatever way they got into it.

use rmesh_gossip::crypto::Key;
use rmesh_gossip::crypto::secret::{self, SECRET_PREFIX};
use serde_json::Value;
use zeroize::Zeroizing;

/// What stands in a secret's place.
pub(super) const REDACTED: &str = "[redacted]";
/// Longest text shown, in bytes; a line of the log is rarely longer than 300.
const TEXT_LEN_MAX: usize = 4_096;
/// Shorter texts are no secret, and taking them out would leave nothing to read; in bytes.
const SECRET_LEN_MIN: usize = 8;
/// Depth to which a value is looked into; what the API answers is 8 deep.
const DEPTH_MAX: u32 = 64;

/// Knows the secrets of this host in every form they are usually written in.
#[derive(Default)]
pub(super) struct Redactor {
    /// In lower case, and compared without regard to case: a secret in capitals is still one.
    known: Vec<Zeroizing<String>>,
}

impl Redactor {
    /// Takes out these 32 bytes in hexadecimal, base32 and base64.
    pub(super) fn add_key(&mut self, key: &Key) {
        let mut hex = Zeroizing::new(String::with_capacity(64));
        for byte in *key.bytes() {
            use std::fmt::Write as _;
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        self.add_text(&hex);
        let text = secret::format(key);
        let base32 = text.strip_prefix(SECRET_PREFIX).unwrap_or(&text);
        self.add_text(base32);
        let base64 = base64(key.bytes());
        self.add_text(&base64);
        let url_safe = Zeroizing::new(base64.replace('+', "-").replace('/', "_"));
        self.add_text(&url_safe);
    }

    /// Takes out this text, such as a passphrase.
    pub(super) fn add_text(&mut self, text: &str) {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.len() >= SECRET_LEN_MIN {
            self.known.push(Zeroizing::new(text.to_ascii_lowercase()));
        }
    }

    /// Takes every secret out of every text in a value, and cuts very long texts short.
    pub(super) fn clean(&self, value: &mut Value) {
        self.clean_to(value, DEPTH_MAX);
    }

    fn clean_to(&self, value: &mut Value, depth: u32) {
        let Some(deeper) = depth.checked_sub(1) else {
            *value = Value::Null;
            return;
        };
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|i| self.clean_to(i, deeper)),
            Value::Object(fields) => {
                let taken = std::mem::take(fields);
                for (name, mut value) in taken {
                    self.clean_to(&mut value, deeper);
                    fields.insert(self.text(&name), value);
                }
            }
            _ => {}
        }
    }

    fn text(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in &self.known {
            clean = replace_any_case(&clean, secret);
        }
        clean = without_generated(&clean);
        if clean.len() > TEXT_LEN_MAX {
            let end = clean.floor_char_boundary(TEXT_LEN_MAX);
            let cut = clean.len() - end;
            clean.truncate(end);
            clean.push_str(&format!("… ({cut} bytes more)"));
        }
        clean
    }
}

/// `secret` is in lower case. Changing the case of ASCII letters moves no byte.
fn replace_any_case(text: &str, secret: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    while let Some(at) = lower.get(from..).and_then(|rest| rest.find(secret)) {
        clean.push_str(text.get(from..from + at).unwrap_or_default());
        clean.push_str(REDACTED);
        from += at + secret.len();
    }
    clean.push_str(text.get(from..).unwrap_or_default());
    clean
}

/// Takes out everything that has the form of a generated secret, of whatever mesh, even in part.
fn without_generated(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for (at, prefix) in lower.match_indices(SECRET_PREFIX) {
        let after = at + prefix.len();
        let digits = text.get(after..).unwrap_or_default();
        let digits = digits.bytes().take_while(u8::is_ascii_alphanumeric).count();
        // The prefix alone is a word of the documentation.
        if digits > 0 && at >= from {
            clean.push_str(text.get(from..at).unwrap_or_default());
            clean.push_str(REDACTED);
            from = after + digits;
        }
    }
    clean.push_str(text.get(from..).unwrap_or_default());
    clean
}

/// RFC 4648 section 4, without padding.
fn base64(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 4 / 3 + 1));
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            let index = group >> (18 - 6 * digit) & 63;
            let letter = DIGITS.get(index as usize).copied().unwrap_or(b'?');
            text.push(char::from(letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()).as_str(), text);
        }
    }

    #[test]
    fn a_key_is_taken_out_in_every_form_wherever_it_stands() {
        let mut bytes = [0xfb; 32];
        bytes[7] = 0x0f;
        let key = Key::new(bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let base32 = secret::format(&key)[SECRET_PREFIX.len()..].to_owned();
        let base64 = base64(&bytes).to_string();
        let url_safe = base64.replace('+', "-").replace('/', "_");
        let upper = [hex.to_uppercase(), base32.to_uppercase()];
        let forms = [hex, base32, base64, url_safe].into_iter().chain(upper);
        let mut redactor = Redactor::default();
        redactor.add_key(&key);
        redactor.add_text("correct horse battery\n");
        for form in forms {
            let mut value = json!({
                "list": [format!("before {form} and {form}, after")],
                (form.clone()): {"deep": format!("ä{form}=")},
                "number": 7,
            });
            redactor.clean(&mut value);
            let text = value.to_string();
            assert!(!text.contains(&form), "{text}");
            assert!(
                text.contains("before [redacted] and [redacted], after"),
                "{text}"
            );
            assert_eq!(value["number"], 7);
        }
        let mut value = json!("the passphrase correct horse battery!");
        redactor.clean(&mut value);
        assert_eq!(value, "the passphrase [redacted]!");
    }

    #[test]
    fn a_generated_secret_of_any_mesh_is_taken_out_even_in_part() {
        let redactor = Redactor::default();
        let mut value = json!([
            "x rmesh1-abcdefgh y",
            "RMESH1-ab",
            "it starts with rmesh1-."
        ]);
        redactor.clean(&mut value);
        let expected = json!(["x [redacted] y", "[redacted]", "it starts with rmesh1-."]);
        assert_eq!(value, expected);
    }

    #[test]
    fn very_long_texts_are_cut_after_they_are_cleaned() {
        let redactor = Redactor::default();
        let mut value = json!(format!("{}rmesh1-abc", "ä".repeat(TEXT_LEN_MAX / 2 - 1)));
        redactor.clean(&mut value);
        let text = value.as_str().unwrap();
        assert!(text.len() < TEXT_LEN_MAX + 64 && !text.contains("rmesh1"));
        assert!(
            text.ends_with("bytes more)"),
            "{}",
            &text[text.len() - 40..]
        );
    }
}
