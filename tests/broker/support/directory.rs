//! An extension that needs no engine: a directory with a UI.

use std::fs;

use longshore::pb;

use super::{Broker, unique};

/// Installs an extension without a backend out of a directory, with all grants, and returns its id.
pub(crate) async fn local(broker: &Broker) -> String {
    broker.install(local_source(broker)).await.unwrap().id
}

/// The request that does so.
pub(crate) fn local_source(broker: &Broker) -> pb::InstallRequest {
    let name = unique("dir");
    let root = broker.scratch().join(&name);
    fs::create_dir_all(root.join("ui")).unwrap();
    let metadata =
        r#"{"icon": "icon.svg", "ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}}}"#;
    fs::write(root.join("metadata.json"), metadata).unwrap();
    fs::write(root.join("ui/index.html"), "<h1>hello</h1>").unwrap();
    fs::write(root.join("icon.svg"), "<svg xmlns='http://www.w3.org/2000/svg'/>").unwrap();
    let source =
        pb::DirectorySource { path: root.display().to_string(), reference: format!("longshore-test/{name}:1") };
    let source = Some(pb::Source { source: Some(pb::source::Source::Directory(source)) });
    pb::InstallRequest { source, trust: true, ..Default::default() }
}
