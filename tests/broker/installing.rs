//! Install and uninstall.

use crate::support::{Broker, Image, trusting};

#[tokio::test]
async fn an_extension_comes_and_goes_without_a_trace() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let extension = broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(extension.id, image.id);
    assert_eq!(extension.state(), longshore::pb::ExtensionState::Ready, "{}", extension.state_message);
    let response = broker.get(&image.id, "/hello?name=x").await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"Hello, x!\n"[..]));
    let removed = broker.uninstall(&image.id, false).await.unwrap();
    assert_eq!(removed, Default::default());
    assert_eq!(std::fs::read_dir(broker.data_dir().join("extensions")).unwrap().count(), 0);
}
