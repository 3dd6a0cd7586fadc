//! Scripts for shells, run by the shell where every machine has it.

use std::process::Command;

fn script(shell: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_longshore")).args(["completions", shell]).output().unwrap();
    assert!(output.status.success(), "{shell}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let (last, before) = words.split_last().unwrap();
    let line = format!(
        "{}\nCOMP_WORDS=({}); COMP_CWORD={}; _longshore longshore '{last}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script("bash"),
        words.iter().map(|word| format!("'{word}' ")).collect::<String>(),
        before.len(),
        before.last().unwrap(),
    );
    let output = Command::new("bash").args(["--norc", "--noprofile", "-c", &line]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_their_options() {
    assert_eq!(offered(&["longshore", "inst"]), ["install"]);
    assert_eq!(offered(&["longshore", "install", "--tru"]), ["--trust"]);
    assert_eq!(offered(&["longshore", "info", "--js"]), ["--json"]);
    assert!(offered(&["longshore", ""]).contains(&"serve".to_owned()));
}

#[test]
fn every_shell_has_a_script_that_names_all_commands_but_the_hidden_one() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = script(shell);
        for command in ["serve", "install", "repair", "completions", "info"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(!script.contains("shim"), "{shell}");
    }
}
