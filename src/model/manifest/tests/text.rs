//! The text itself: strictness, places, bounds.

use super::*;

#[test]
fn wrong_types_are_named_with_their_place() {
    for (text, place) in [
        ("[]", "error "),
        ("null", "error "),
        ("7", "error "),
        (r#"{"ui":[]}"#, "error /ui"),
        (r#"{"ui":{"dashboard-tab":"x"}}"#, "error /ui/dashboard-tab"),
        (r#"{"vm":true}"#, "error /vm"),
        (r#"{"vm":{"image":1}}"#, "error /vm/image"),
        (r#"{"vm":{"composefile":["c"]}}"#, "error /vm/composefile"),
        (r#"{"vm":{"image":"a/b","exposes":"x.sock"}}"#, "error /vm/exposes"),
        (r#"{"host":[]}"#, "error /host"),
        (r#"{"vm":{"image":"\ud800"}}"#, "error /vm/image"),
    ] {
        let found = findings(&parsed(text));
        assert!(found.contains(&place.to_owned()), "{text}: {found:?}");
    }
}

#[test]
fn every_problem_is_found_at_once_with_its_place() {
    let text = "{\n  \"icon\": 1,\r\n  \"ui\": {\"dashboard-tab\": {\"title\": \"ü\", \"root\": \"..\"}},\n\
                \t\"vm\": {\"image\": \"\"\n}, \"vm\":\n{\"image\": \"A\"}\n}";
    let parsed = parsed(text);
    let places: Vec<_> =
        parsed.problems.iter().map(|problem| (problem.line, problem.column, problem.field.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, 11, "/icon"),
            (3, 27, "/ui/dashboard-tab"),
            (3, 51, "/ui/dashboard-tab/root"),
            (6, 1, "/vm"),
            (6, 11, "/vm/image")
        ]
    );
    let error = first_error(&parsed.problems).unwrap();
    assert_eq!(error.message(), "metadata.json:2:11: /icon: must be a string, not a number (and 2 more errors)");
}

#[test]
fn duplicate_keys_are_told_and_the_last_counts() {
    let text = format!(r#"{{{VM},"icon":"second.svg"}}"#);
    finds(&text, &["warning /icon"]);
    assert_eq!(manifest(&text).icon.unwrap().as_str(), "second.svg");
}

#[test]
fn the_json_is_strict_but_for_a_byte_order_mark() {
    let good = format!("{{{UI}}}");
    for text in [good.clone(), format!("\u{feff}{good}"), good.replace(',', ",\r\n"), format!("{good}\r\n\n")] {
        assert_eq!(manifest(&text), manifest(&good));
    }
    for (text, line, column) in [
        ("", 1, 1),
        ("{\n  \"a\": 1,\n}", 3, 1),
        ("{ // comment\n}", 1, 3),
        ("{'a': 1}", 1, 2),
        ("{\"a\": 01}", 1, 8),
        ("{} {}", 1, 4),
        ("{\"a\": \"\n\"}", 1, 7),
    ] {
        let parsed = parsed(text);
        let [problem] = &parsed.problems[..] else { panic!("{text:?}: {:?}", parsed.problems) };
        assert!(parsed.manifest.is_none() && problem.is_error());
        assert_eq!((problem.line, problem.column), (line, column), "{text:?}: {problem}");
        assert!(problem.message.starts_with("is not valid JSON: "), "{problem}");
    }
    let bad = parse(b"{\n \"a\": \"\xff\"}", HostOs::Linux);
    assert_eq!(bad.problems[0].to_string(), "metadata.json:2:8: is not UTF-8 text");
}

#[test]
fn hostile_sizes_are_bounded() {
    let large = vec![b' '; (1 << 20) + 1];
    assert!(parse(&large, HostOs::Linux).problems[0].message.contains("at most 1048576"));
    assert!(parse(&vec![b'['; 1 << 20], HostOs::Linux).manifest.is_none());
    let deep = format!("{{{VM},\"x\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
    finds(&deep, &["note /x"]);
    let keys: Vec<String> = (0..50_000).map(|i| format!("\"k{i}\":0")).collect();
    let many = parsed(&format!("{{{VM},{}}}", keys.join(",")));
    assert!(many.manifest.is_some() && many.problems.len() == 1000);
    let many = parsed(&format!("{{{VM},{},\"host\":7}}", keys.join(",")));
    assert!(many.manifest.is_none() && many.problems.len() == 1000);
    let long = parsed(&format!("{{{VM},\"{}\":0}}", "k".repeat(100_000)));
    assert!(long.problems[0].to_string().len() < 400);
}

#[test]
fn messages_hold_no_control_characters() {
    let text = format!(r#"{{{VM},"\u001b[2J":0,"icon":"\u001b]0;x\u0007"}}"#);
    let parsed = parsed(&text);
    assert_eq!(parsed.problems.len(), 3);
    for problem in &parsed.problems {
        assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
}
