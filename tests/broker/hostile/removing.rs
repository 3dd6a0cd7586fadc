//! What an extension leaves so that it cannot be removed.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::support::{BrokerOptions, Stage, as_both, no_traces};

as_both!(files_of_root_go_wherever_they_are, a_paused_container_goes);

async fn files_of_root_go_wherever_they_are(options: BrokerOptions) {
    let script = "umask 077; for d in /data /run/guest-services; do mkdir -p $$d/a/b/.c; echo x > $$d/a/b/.c/d; \
                  ln -s /etc $$d/a/etc; ln -s / $$d/root; chmod 000 $$d/a/b; done; mv /data/a /data/z; chmod 000 /data; \
                  trap 'exit 0' TERM; while :; do sleep 600 & wait $$!; done";
    let file = format!(
        "services:\n  web:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n    command: ['/bin/sh', '-c', {script:?}]\n    \
         volumes: ['./data:/data', './data/deep/er:/deeper']\n"
    );
    let stage = Stage::without_wait(composed(&file), options).await;
    let directory = stage.extension_dir();
    // The last thing that the script does.
    let data = directory.join("generations/1/compose/data");
    for _ in 0..100 {
        if data.metadata().is_ok_and(|found| found.mode() & 0o777 == 0) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let found = files(&directory);
    assert!(found.iter().any(|path| path.ends_with("data/z/b/.c/d")), "{found:#?}");
    assert!(found.iter().any(|path| path.ends_with("guest/a/b/.c/d")), "{found:#?}");
    stage.broker.uninstall(&stage.id(), false).await.unwrap();
    no_traces(&stage.broker, &stage.id()).await;
    assert!(!directory.exists() && Path::new("/etc/passwd").exists());
}

async fn a_paused_container_goes(options: BrokerOptions) {
    let file = format!("services:\n  web:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n    command: {SLEEP}\n");
    let stage = Stage::without_wait(composed(&file), options).await;
    docker(&["pause", &stage.container("web")]);
    stage.broker.uninstall(&stage.id(), false).await.unwrap();
    no_traces(&stage.broker, &stage.id()).await;
}
