//! Compiles the protos. `protox` does it in Rust, so no `protoc` needs to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> =
        fs::read_dir("proto/longshore/v1")?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("longshore.bin"), descriptors.encode_to_vec())?;
    // Without the constructor `connect`, whose name `BackendService.Connect` has.
    let code = || tonic_prost_build::configure().build_transport(false);
    code().bytes(".").compile_fds(descriptors.clone())?;
    let partial = PathBuf::from(env::var("OUT_DIR")?).join("partial");
    fs::create_dir_all(&partial)?;
    let rest = without_carried(descriptors);
    code().build_client(false).extern_path(".longshore.v1", "crate::pb").out_dir(partial).compile_fds(rest)?;
    Ok(())
}

/// The methods that `src/api` serves without generated code, so that bodies and output are never copied.
const CARRIED: [(&str, &[&str]); 2] =
    [("BackendService", &["Fetch", "Stream", "Connect"]), ("ExecService", &["Exec", "Run"])];

/// The services that have such methods, without them.
fn without_carried(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut descriptors.file {
        file.service.retain_mut(|service| {
            let Some((_, carried)) = CARRIED.iter().find(|(name, _)| *name == service.name()) else { return false };
            service.method.retain(|method| !carried.contains(&method.name()));
            true
        });
    }
    descriptors
}
