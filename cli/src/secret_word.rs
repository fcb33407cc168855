//! A secret on a command line.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

/// A text that is overwritten when dropped, and that nobody sees by mistake.
#[derive(Clone)]
pub(crate) struct SecretWord(Zeroizing<String>);

impl SecretWord {
    /// The text.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        self.0.clone()
    }
}

impl fmt::Debug for SecretWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretWord(…)")
    }
}

/// Takes everything: a refusal by the command line's parser would repeat the word.
impl FromStr for SecretWord {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(SecretWord(Zeroizing::new(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use crate::args::parse;

    #[test]
    fn no_form_of_a_command_line_shows_its_secret() {
        let word = "correct-horse-battery";
        let shown = format!("{:?}", parse(["rmesh", "launch", "--secret", word]));
        assert!(shown.contains("SecretWord(…)"), "{shown}");
        assert!(!shown.contains(word), "{shown}");
        // Nor does a refusal of the line it stands in.
        let twice = ["rmesh", "launch", "--secret", word, "--secret", word];
        let mixed = ["rmesh", "launch", "--secret", word, "--secret-file", "f"];
        for line in [&twice[..], &mixed] {
            let refused = parse(line).unwrap_err().to_string();
            assert!(!refused.contains(word), "{refused}");
        }
    }
}
