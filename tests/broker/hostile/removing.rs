//! What an extension leaves so that it cannot be removed.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::support::{BrokerOptions, Image, PrivateEngine, Stage, as_both, eventually, no_traces, reason};

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

/// Somebody mounted something of theirs below an extension's directory, where only the engine sees it; and the container's
/// root left files there, which the engine has to remove.
#[tokio::test]
async fn what_is_mounted_where_the_engine_removes_stays() {
    let mut engine = PrivateEngine::start().await;
    let script = "mkdir -p -m 700 /run/guest-services/a/in/deep; echo x > /run/guest-services/a/b; \
                  exec /hello-backend serve --socket /run/guest-services/backend.sock";
    let image = Image::hello().busybox().change(&format!("CMD [\"/bin/sh\", \"-c\", {script:?}]"));
    let stage = Stage::install(image, engine.broker(BrokerOptions { plain: true, ..Default::default() })).await;
    let (theirs, guest) = (stage.broker.scratch().join("theirs"), stage.guest_dir());
    std::fs::create_dir_all(theirs.join("deep")).unwrap();
    for kept in ["kept", "deep/kept"] {
        std::fs::write(theirs.join(kept), "x").unwrap();
    }
    let point = guest.join("a/in");
    engine.sh(&format!("mount --bind '{}' '{}'", theirs.display(), point.display()));
    let refused = stage.broker.uninstall(&stage.id(), false).await.unwrap_err();
    assert_eq!(reason(&refused), "FILE_FAILED", "{refused:?}");
    assert!(theirs.join("deep/kept").exists() && theirs.join("kept").exists(), "{:#?}", files(&theirs));
    // All else went, or was moved on the way.
    let directory = stage.extension_dir();
    assert!(!files(&directory).iter().any(|path| path.ends_with("a/b")), "{:#?}", files(&directory));
    engine.sh(&format!("umount $(findmnt -rno TARGET | grep '^{}')", directory.display()));
    // Now, or by the one who tries again.
    let _ = stage.broker.uninstall(&stage.id(), false).await;
    eventually(async || (!directory.exists()).then_some(())).await;
    assert!(theirs.join("deep/kept").exists());
}
