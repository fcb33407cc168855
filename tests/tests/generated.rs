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

/// The commands that a help text lists.
fn commands_of(help: &str) -> Vec<String> {
    let Some((_, commands)) = help.split_once("Commands:\n") else {
        return Vec::new();
    };
    let lines = commands.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|verb| *verb != "help");
    names.map(str::to_owned).collect()
}

/// How many commands there are under one.
fn below(words: &[&str]) -> usize {
    let help = text(&rmesh(&[words, &["--help"]].concat()));
    let own = commands_of(&help);
    let deeper = own.iter().map(|verb| below(&[words, &[verb]].concat()));
    own.len() + deeper.sum::<usize>()
}

#[test]
fn man_pages_are_made_for_every_command_that_help_lists() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("share/man1");
    let listed = text(&rmesh(&["man", &pages.display().to_string()]));
    let help = text(&rmesh(&["--help"]));
    let verbs = commands_of(&help);
    let count: usize = verbs.iter().map(|verb| below(&[verb])).sum();
    assert!(count >= 6, "ipam has commands of its own");
    assert!(
        verbs.len() > 10 && verbs.contains(&"report".into()),
        "{verbs:?}"
    );
    assert_eq!(listed.lines().count(), verbs.len() + count + 1, "{listed}");
    for verb in verbs {
        let page = std::fs::read_to_string(pages.join(format!("rmesh-{verb}.1")));
        let page = page.unwrap_or_else(|error| panic!("rmesh-{verb}.1: {error}"));
        let help = text(&rmesh(&[verb.as_str(), "--help"]));
        assert_eq!(
            page.contains(".SH EXAMPLES"),
            help.contains("Example"),
            "{verb}"
        );
        assert!(!page.contains("the packager"), "{verb}: a variable's value");
    }
    for page in ["rmesh.1", "rmesh-ipam-release.1"] {
        assert!(Path::new(&pages.join(page)).exists(), "{page}");
    }
}
