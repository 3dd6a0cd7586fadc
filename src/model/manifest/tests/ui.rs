//! The UI part and the icon.

use super::*;

#[test]
fn titles_are_trimmed_and_kept() {
    for (title, wanted) in [("Open Horizon ", "Open Horizon"), ("Logs & Traces", "Logs & Traces"), ("X's", "X's")] {
        let text = tab(&format!(r#""title":"{title}","root":"ui","src":"index.html""#));
        finds(&text, &[]);
        assert_eq!(manifest(&text).ui.unwrap().title, wanted);
    }
    finds(&tab(r#""root":"ui","src":"a.html""#), &["warning /ui/dashboard-tab"]);
    finds(&tab(r#""title":" ","root":"ui","src":"a.html""#), &["warning /ui/dashboard-tab/title"]);
}

#[test]
fn roots_are_alike_with_and_without_a_slash() {
    for (root, wanted) in [
        ("ui", "ui"),
        ("/ui", "ui"),
        ("/client", "client"),
        ("build", "build"),
        ("/swagger-editor", "swagger-editor"),
        ("./plugin-ui/", "plugin-ui"),
    ] {
        let text = tab(&format!(r#""title":"T","root":"{root}","src":"index.html""#));
        finds(&text, &[]);
        assert_eq!(manifest(&text).ui.unwrap().root.as_str(), wanted, "{root}");
    }
    for root in ["..", "/a/../b", "/", r"C:\\ui", "http://localhost:3000"] {
        let text = tab(&format!(r#""title":"T","root":"{root}","src":"index.html""#));
        finds(&text, &["error /ui/dashboard-tab/root"]);
    }
}

#[test]
fn a_tab_without_a_root_is_left_out() {
    let text = format!(r#"{{{VM},"ui":{{"dashboard-tab":{{"title":"T","src":"index.html"}}}}}}"#);
    finds(&text, &["warning /ui/dashboard-tab"]);
    assert_eq!(manifest(&text).ui, None);
    finds(&tab(r#""title":"T","root":"","src":"a""#), &["error ", "warning /ui/dashboard-tab/root"]);
    finds(&format!(r#"{{{VM},"ui":{{}}}}"#), &["warning /ui"]);
}

#[test]
fn entries_lose_their_lead_and_keep_their_query() {
    for (src, entry, file) in [
        ("index.html", "index.html", "index.html"),
        ("/index.html", "index.html", "index.html"),
        ("./v2/index.html", "v2/index.html", "v2/index.html"),
        ("index.html?v0.4.0", "index.html?v0.4.0", "index.html"),
        ("/a.html?next=../x#/route", "a.html?next=../x#/route", "a.html"),
    ] {
        let text = tab(&format!(r#""title":"T","root":"ui","src":"{src}""#));
        finds(&text, &[]);
        let ui = manifest(&text).ui.unwrap();
        assert_eq!((ui.entry.as_str(), ui.entry_file()), (entry, file), "{src}");
    }
    for src in ["../index.html", "http://localhost:3000/", "v2/", r"a\\b.html", "a?\\u0000"] {
        let text = tab(&format!(r#""title":"T","root":"ui","src":"{src}""#));
        finds(&text, &["error /ui/dashboard-tab/src"]);
    }
}

#[test]
fn a_missing_entry_is_index_html() {
    for (src, entry, place) in [
        ("", "index.html", "warning /ui/dashboard-tab"),
        (r#","src":"""#, "index.html", "warning /ui/dashboard-tab/src"),
        (r#","src":null"#, "index.html", "warning /ui/dashboard-tab"),
        (r#","src":"?a=1""#, "index.html?a=1", "warning /ui/dashboard-tab/src"),
    ] {
        let text = tab(&format!(r#""title":"T","root":"ui"{src}"#));
        finds(&text, &[place]);
        assert_eq!(manifest(&text).ui.unwrap().entry, entry);
    }
}

#[test]
fn the_icon_may_be_missing_but_not_wrong() {
    let ui = r#""ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}}"#;
    for (icon, wanted) in [
        (r#""icon":"icon.svg","#, None),
        (r#""icon":"/public/icon.png","#, None),
        ("", Some("warning ")),
        (r#""icon":"","#, Some("warning /icon")),
        (r#""icon":null,"#, Some("warning ")),
        (r#""icon":"icons/","#, Some("warning /icon")),
        (r#""icon":"https://example.com/i.svg","#, Some("warning /icon")),
        (r#""icon":"../../etc/passwd","#, Some("error /icon")),
        (r#""icon":["a.svg"],"#, Some("error /icon")),
    ] {
        finds(&format!("{{{icon}{ui}}}"), wanted.as_slice());
    }
    finds(r#"{"vm":{"image":"a/b"}}"#, &["note "]);
}
