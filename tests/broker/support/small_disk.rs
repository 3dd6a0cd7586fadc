//! A small disk under a broker's data, to be filled. It is mounted in a mount namespace of its own, which a process holds
//! open that ends with the test: nobody else sees it, and nothing of it is left.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

/// A disk in memory.
pub(crate) struct SmallDisk {
    /// Whoever holds the namespace, until its input ends.
    holder: Child,
    input: Option<ChildStdin>,
    at: PathBuf,
}

impl SmallDisk {
    /// Puts one of `mib` MiB at a directory, which is made.
    pub(super) fn at(at: &Path, mib: u32) -> SmallDisk {
        fs::create_dir_all(at).unwrap();
        let script =
            format!("mount -t tmpfs -o size={mib}m,mode=700 tmpfs \"$1\" && echo there && exec cat >/dev/null");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &script, "sh"]).arg(at).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = unshare.spawn().unwrap();
        let input = holder.stdin.take();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "there\n", "a small disk needs root and unshare");
        SmallDisk { holder, input, at: at.to_owned() }
    }

    /// Begins a command that runs where the disk is.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--");
        command
    }

    /// Where its files are for those who are elsewhere.
    fn file(&self, name: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(self.at.strip_prefix("/").unwrap()).join(name)
    }

    /// Fills what is left of it.
    pub(crate) fn fill(&self) {
        let mut file = fs::File::create(self.file("filled")).unwrap();
        while std::io::Write::write(&mut file, &[7; 4096]).is_ok() {}
    }

    /// Takes away what [`SmallDisk::fill`] wrote.
    pub(crate) fn free(&self) {
        fs::remove_file(self.file("filled")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.holder.wait();
    }
}
