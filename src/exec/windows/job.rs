//! Job Objects: what keeps a program with all that it starts. No process leaves one, and all in it end when the last
//! handle of it is closed, however that happens.

use std::{
    ffi::c_void,
    io,
    mem::{size_of, zeroed},
    os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle, RawHandle},
    ptr,
};

use windows_sys::Win32::{
    Foundation::INVALID_HANDLE_VALUE,
    System::{
        Diagnostics::ToolHelp::{
            CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
        },
        JobObjects::{
            AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
            JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
            JobObjectBasicAccountingInformation, JobObjectExtendedLimitInformation, QueryInformationJobObject,
            SetInformationJobObject, TerminateJobObject,
        },
        Threading::{
            OpenProcess, OpenThread, PROCESS_QUERY_INFORMATION, PROCESS_QUERY_LIMITED_INFORMATION, ResumeThread,
            THREAD_SUSPEND_RESUME,
        },
    },
};

/// A job.
#[derive(Debug)]
pub(super) struct Job(OwnedHandle);

impl Job {
    /// An empty one, whose processes end with this value.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: neither attributes nor a name are given; the handle that is returned is ours.
        let handle = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made, and nothing else closes it.
        let job = Job(unsafe { OwnedHandle::from_raw_handle(handle) });
        // SAFETY: of plain numbers, all of which may be 0.
        let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = unsafe { zeroed() };
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        // SAFETY: the system reads as many bytes as the structure has.
        done(unsafe {
            SetInformationJobObject(
                job.0.as_raw_handle(),
                JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32,
            )
        })?;
        Ok(job)
    }

    /// Takes a process in, which must not have started anything yet.
    pub(super) fn take(&self, process: RawHandle) -> io::Result<()> {
        // SAFETY: both handles are open.
        done(unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), process) })
    }

    /// How many processes it has.
    pub(super) fn count(&self) -> io::Result<u32> {
        // SAFETY: of plain numbers.
        let mut found: JOBOBJECT_BASIC_ACCOUNTING_INFORMATION = unsafe { zeroed() };
        let place: *mut c_void = (&raw mut found).cast();
        // SAFETY: the system writes no more than the structure has.
        done(unsafe {
            QueryInformationJobObject(
                self.0.as_raw_handle(),
                JobObjectBasicAccountingInformation,
                place,
                size_of::<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION>() as u32,
                ptr::null_mut(),
            )
        })?;
        Ok(found.ActiveProcesses)
    }

    /// Ends all of them, each with that code.
    pub(super) fn end(&self, code: u32) -> io::Result<()> {
        // SAFETY: the handle is open.
        done(unsafe { TerminateJobObject(self.0.as_raw_handle(), code) })
    }

    /// Whether the process of that number is in it; `None` where that process is gone or cannot be looked at.
    pub(super) fn has(&self, pid: u32) -> Option<bool> {
        // The first is enough on Windows, also for processes of more rights than ours; Wine wants the second.
        [PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_QUERY_INFORMATION].into_iter().find_map(|access| {
            // SAFETY: the handle that is returned is ours.
            let process = unsafe { OpenProcess(access, 0, pid) };
            if process.is_null() {
                return None;
            }
            // SAFETY: it was just opened, and nothing else closes it.
            let process = unsafe { OwnedHandle::from_raw_handle(process) };
            let mut is_in = 0;
            // SAFETY: both handles are open; only `is_in` is written to.
            done(unsafe { IsProcessInJob(process.as_raw_handle(), self.0.as_raw_handle(), &mut is_in) })
                .inspect_err(|error| tracing::debug!(pid, %error, "a process is not told by its job"))
                .ok()
                .map(|()| is_in != 0)
        })
    }
}

/// Lets the threads of a process run that was made suspended.
pub(super) fn resume(pid: u32) -> io::Result<()> {
    // SAFETY: the handle that is returned is ours.
    let threads = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
    if threads == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and nothing else closes it.
    let threads = unsafe { OwnedHandle::from_raw_handle(threads) };
    // SAFETY: of plain numbers.
    let mut thread: THREADENTRY32 = unsafe { zeroed() };
    thread.dwSize = size_of::<THREADENTRY32>() as u32;
    // SAFETY: the structure says how large it is.
    let mut is_there = unsafe { Thread32First(threads.as_raw_handle(), &mut thread) } != 0;
    let mut resumed = false;
    while is_there {
        if thread.th32OwnerProcessID == pid {
            resume_thread(thread.th32ThreadID)?;
            resumed = true;
        }
        // SAFETY: as above.
        is_there = unsafe { Thread32Next(threads.as_raw_handle(), &mut thread) } != 0;
    }
    if resumed { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn resume_thread(id: u32) -> io::Result<()> {
    // SAFETY: the handle that is returned is ours.
    let thread = unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, id) };
    if thread.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nothing else closes it.
    let thread = unsafe { OwnedHandle::from_raw_handle(thread) };
    // SAFETY: the handle is open.
    if unsafe { ResumeThread(thread.as_raw_handle()) } == u32::MAX { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn done(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
