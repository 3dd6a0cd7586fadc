//! Compiles the protos. `protox` does it in Rust, so no `protoc` needs to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> =
        fs::read_dir("proto/longshore/v1")?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("longshore.bin"), descriptors.encode_to_vec())?;
    // Without the constructor `connect`, whose name `BackendService.Connect` has.
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
