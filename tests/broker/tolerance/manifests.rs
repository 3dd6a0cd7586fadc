//! `metadata.json`, image files and labels: real-extensions 1.2, 1.3 and 2.4, line by line.

use super::*;

/// A line of the table: what was counted, the manifest, and what is expected.
type Line = (&'static str, &'static str, Verdict);

/// The files of the image are those of [`image`].
fn lines() -> Vec<Line> {
    let mut lines = shapes();
    lines.extend(hosts());
    lines
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn shapes() -> Vec<Line> {
    vec![
        ("ui only", r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}}}"#, Fine),
        (
            "absolute paths everywhere",
            r#"{"icon":"/icon.svg","ui":{"dashboard-tab":{"title":"T","root":"/ui","src":"/index.html"}}}"#,
            Fine,
        ),
        (
            "./v2/index.html",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"./v2/index.html"}}}"#,
            Fine,
        ),
        (
            "src with a query",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html?v0.4.0"}}}"#,
            Fine,
        ),
        ("no src", r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui"}}}"#, Warns("src")),
        (
            "no root",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","src":"index.html"}}}"#,
            Refused("metadata.json"),
        ),
        ("no title", r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"root":"ui","src":"index.html"}}}"#, Warns("title")),
        (
            "titles with trailing space, ampersand, apostrophe",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"Bob's A & B ","root":"ui","src":"index.html"}}}"#,
            Fine,
        ),
        ("no icon", r#"{"ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}}}"#, Warns("icon")),
        (
            "icon not in the image",
            r#"{"icon":"public/no.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}}}"#,
            Warns("/icon"),
        ),
        (
            "root not in the image (saptak)",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"/gone","src":"index.html"}}}"#,
            Refused("/ui/dashboard-tab/root"),
        ),
        (
            "src not in the image",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"gone.html"}}}"#,
            Warns("/ui/dashboard-tab/src"),
        ),
        (
            "composefile not in the image (saptak)",
            r#"{"vm":{"composefile":"docker-compose.yml"}}"#,
            Refused("/vm/composefile"),
        ),
        (
            "tab's socket alone, no vm (oauth-sample)",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html","backend":{"socket":"b.sock"}}}}"#,
            Fine,
        ),
        (
            "tcp 9000 (portainer)",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html","backend":{"tcp":"9000"}}}}"#,
            Warns("tcp"),
        ),
        (
            "empty vm (safe-install)",
            r#"{"icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}},"vm":{}}"#,
            Warns("/vm"),
        ),
        (
            "image and composefile",
            r#"{"vm":{"image":"${DESKTOP_PLUGIN_IMAGE}","composefile":"compose.yaml"}}"#,
            Warns("/vm/image"),
        ),
        (
            "composefile, absolute",
            r#"{"vm":{"composefile":"/compose.yaml","exposes":{"socket":"extension-LocalStack.sock"}}}"#,
            Fine,
        ),
        ("composefile in a directory", r#"{"vm":{"composefile":"vm/extension-compose.yml"}}"#, Fine),
        (
            "a socket called docker.sock (portainer, keploy)",
            r#"{"vm":{"image":"${DESKTOP_PLUGIN_IMAGE}","exposes":{"socket":"docker.sock"}}}"#,
            Fine,
        ),
        (
            "a socket with a path",
            r#"{"vm":{"image":"${DESKTOP_PLUGIN_IMAGE}","exposes":{"socket":"../x.sock"}}}"#,
            Refused("/vm/exposes/socket"),
        ),
        ("a literal vm.image", r#"{"vm":{"image":"ghcr.io/a/b:1.0"}}"#, Fine),
        (
            "unknown and obsolete keys",
            r#"{"name":"n","provider":"p","description":"d","version":"1","desktop-plugin-version":"0.2","capabilities":["host-networking"],"x":{},
                "icon":"icon.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}}}"#,
            Fine,
        ),
        (
            "byte order mark, CRLF",
            "\u{feff}{\r\n\"icon\":\"icon.svg\",\r\n\"ui\":{\"dashboard-tab\":{\"title\":\"T\",\"root\":\"ui\",\"src\":\"index.html\"}}}\r\n",
            Fine,
        ),
        ("not JSON", "{\n  \"icon\": \"a\",\n}", Refused("metadata.json")),
        ("nothing to install", "{}", Refused("metadata.json")),
        (
            "a path that climbs",
            r#"{"ui":{"dashboard-tab":{"title":"T","root":"../etc","src":"index.html"}}}"#,
            Refused("/ui/dashboard-tab/root"),
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn hosts() -> Vec<Line> {
    vec![
        (
            "no binaries",
            r#"{"host":{"binaries":[]},"ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}},"icon":"icon.svg"}"#,
            Fine,
        ),
        (
            "three systems",
            r#"{"host":{"binaries":[{"darwin":[{"path":"/darwin/x"}],"linux":[{"path":"/host/linux/x.sh"}],"windows":[{"path":"/w/x.exe"}]}]}}"#,
            Fine,
        ),
        (
            "nothing for Linux (kubesail)",
            r#"{"host":{"binaries":[{"darwin":[{"path":"/darwin/x"}],"windows":[{"path":"/w/x.exe"}]}]}}"#,
            Fine,
        ),
        ("a relative path", r#"{"host":{"binaries":[{"linux":[{"path":"host/linux/x.sh"}]}]}}"#, Fine),
        (
            "several objects (microcks)",
            r#"{"host":{"binaries":[{"linux":[{"path":"/host/linux/x.sh"}]},{"windows":[{"path":"/w/x.exe"}]},{"linux":[{"path":"/host/linux/app.properties"}]}]}}"#,
            Fine,
        ),
        ("a directory", r#"{"host":{"binaries":[{"linux":[{"path":"/host/linux/"}]}]}}"#, Fine),
        (
            "one file for two systems",
            r#"{"host":{"binaries":[{"linux":[{"path":"/host/linux/x.sh"}],"darwin":[{"path":"/host/linux/x.sh"}]}]}}"#,
            Fine,
        ),
        (
            "a name twice (gefyra)",
            r#"{"host":{"binaries":[{"linux":[{"path":"/host/linux/x.sh"},{"path":"/host/other/x.sh"}]}]}}"#,
            Warns("same base name"),
        ),
        (
            "name and cmd, no system",
            r#"{"host":{"binaries":[{"name":"docker","cmd":"docker"}]},"ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}},"icon":"icon.svg"}"#,
            Warns("/host/binaries/0"),
        ),
        (
            "a path, no system",
            r#"{"host":{"binaries":[{"path":"/usr/bin/x"}]},"ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}},"icon":"icon.svg"}"#,
            Warns("/host/binaries/0"),
        ),
        (
            "a Windows path",
            r#"{"host":{"binaries":[{"linux":[{"path":"/host/linux/x.sh"}],"windows":[{"path":"C:\\Program Files\\Docker\\docker.exe"}]}]}}"#,
            Warns("/host/binaries/0/windows/0"),
        ),
        (
            "a command to be run at install (telepresence)",
            r#"{"host":{"binaries":[{"linux":[{"path":"/host/linux/x.sh","install":{"command":"x","requiresAdmin":true}}]}]}}"#,
            Warns("never runs commands"),
        ),
        (
            "not in the image",
            r#"{"host":{"binaries":[{"linux":[{"path":"/host/linux/gone"}]}]}}"#,
            Refused("/host/binaries/0/linux/0"),
        ),
        (
            "a path that climbs",
            r#"{"host":{"binaries":[{"linux":[{"path":"/host/../../x"}]}]}}"#,
            Refused("/host/binaries/0/linux/0"),
        ),
    ]
}

fn image(manifest: &str) -> ImageBuilder {
    let compose = "services:\n  a:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n";
    usual(Image::builder())
        .file("metadata.json", manifest, 0o644)
        .file("ui/v2/index.html", "<h1>v2</h1>", 0o644)
        .file("compose.yaml", compose, 0o644)
        .file("vm/extension-compose.yml", compose, 0o644)
        .file("host/linux/x.sh", "#!/bin/sh\necho x\n", 0o755)
        .file("host/other/x.sh", "#!/bin/sh\necho y\n", 0o755)
        .file("host/linux/app.properties", "a=b\n", 0o644)
}

#[tokio::test]
async fn every_shape_of_a_manifest_is_taken_or_named() {
    let broker = Broker::start().await;
    for (line, manifest, verdict) in lines() {
        let (_files, source) = directory(image(manifest), "longshore-test/manifest");
        check(line, &inspect(&broker, source).await.problems, &verdict);
    }
    assert_eq!(std::fs::read_dir(broker.data_dir().join("staging")).unwrap().count(), 0);
}

/// Labels are the publisher's text: empty, unexpanded, HTML, JSON in a string. None of them prevents an install.
#[tokio::test]
async fn odd_labels_do_not_matter() {
    let broker = Broker::start().await;
    let api = "com.docker.desktop.extension.api.version";
    for version in [">=0.2.x", "1.0.0-beta.1", "${DD_API_VERSION}", ">= 1.4.7, < 2.0", "", "0.1.0"] {
        let image = image(&super::metadata().replace("\"vm\"", "\"x\""))
            .label(api, version)
            .label("org.opencontainers.image.title", "")
            .label("com.docker.extension.detailed-description", "<p class='a'>\"x\" & <script>alert(1)</script></p>")
            .label("com.docker.extension.additional-urls", "[{\"title\":\"T\",\"url\":\"https://x.y\"}]")
            .label("com.docker.extension.screenshots", "")
            .build()
            .await;
        let source = crate::support::image_source(&image.reference);
        let problems = inspect(&broker, source).await.problems;
        assert!(problems.iter().all(|p| p.severity() != pb::Severity::Error), "{version}: {problems:#?}");
    }
}
