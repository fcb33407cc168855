//! What the program makes for shells and for `man`. Needs no root.

use std::path::Path;
use std::process::{Command, Output};

fn rmesh(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_rmesh-under-test"))
        .args(arguments)
        .env("RMESH_SECRET", "the secret of the packager")
        .output();
    output.expect("the program")
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn every_shell_gets_its_completions_and_bash_understands_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&rmesh(&["completions", shell]));
        for word in ["rmesh", "launch", "attach", "secret-file"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(
            !script.contains("the packager"),
            "{shell}: a variable's value"
        );
        let path = folder.path().join(shell);
        std::fs::write(&path, script).expect("room on the disk");
    }
    let bash = folder.path().join("bash");
    let parsed = Command::new("bash")
        .arg("-n")
        .arg(&bash)
        .output()
        .expect("bash");
    assert!(
        parsed.status.success(),
        "{}",
        String::from_utf8_lossy(&parsed.stderr)
    );
    // What it completes in a real shell.
    let words = "source \"$1\"; COMP_WORDS=(rmesh att); COMP_CWORD=1; _rmesh rmesh att rmesh; \
                 echo \"${COMPREPLY[@]}\"";
    let arguments = ["--norc", "-c", words, "bash"];
    let completed = Command::new("bash")
        .args(arguments)
        .arg(&bash)
        .output()
        .expect("bash");
    assert_eq!(text(&completed).trim(), "attach");
    let refused = rmesh(&["completions", "tcsh"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn man_pages_are_made_for_every_command_that_help_lists() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("share/man1");
    let listed = text(&rmesh(&["man", &pages.display().to_string()]));
    let help = text(&rmesh(&["--help"]));
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let verbs: Vec<&str> = commands
        .lines()
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 10 && verbs.contains(&"report"), "{verbs:?}");
    assert_eq!(listed.lines().count(), verbs.len() + 1, "{listed}");
    for verb in verbs {
        let page = std::fs::read_to_string(pages.join(format!("rmesh-{verb}.1")));
        let page = page.unwrap_or_else(|error| panic!("rmesh-{verb}.1: {error}"));
        let help = text(&rmesh(&[verb, "--help"]));
        assert_eq!(
            page.contains(".SH EXAMPLES"),
            help.contains("Example"),
            "{verb}"
        );
        assert!(!page.contains("the packager"), "{verb}: a variable's value");
    }
    assert!(Path::new(&pages.join("rmesh.1")).exists());
}
