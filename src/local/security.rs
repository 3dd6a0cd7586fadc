//! Who may open a pipe, and whose a pipe is.

use std::{
    ffi::c_void,
    io,
    mem::{size_of, zeroed},
    os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle},
    ptr,
};

use windows_sys::Win32::{
    Foundation::{ERROR_SUCCESS, HANDLE, LocalFree},
    Security::{
        Authorization::{
            ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
            SDDL_REVISION_1, SE_KERNEL_OBJECT,
        },
        EqualSid, GetTokenInformation, OWNER_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, SECURITY_ATTRIBUTES,
        TOKEN_QUERY, TOKEN_USER, TokenUser,
    },
    System::Threading::{GetCurrentProcess, OpenProcessToken},
};

/// Memory that the system gave, and takes back.
#[derive(Debug)]
struct Given(*mut c_void);

// SAFETY: it is only read, and freed once, by whoever holds it last.
unsafe impl Send for Given {}
// SAFETY: as above.
unsafe impl Sync for Given {}

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: the system allocated it for us with `LocalAlloc`, and nothing else frees it.
        unsafe { LocalFree(self.0) };
    }
}

/// Says that an object belongs to this process's user, who alone may use it: not other users, not the group, and no
/// rights come from above.
#[derive(Debug)]
pub struct Security(Given);

impl Security {
    /// For the user of this process.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn of_this_user() -> io::Result<Self> {
        let user = User::of_this_process()?;
        let sid = user.text()?;
        let text: Vec<u16> = format!("O:{sid}D:P(A;;GA;;;{sid})\0").encode_utf16().collect();
        let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
        // SAFETY: the text ends in a NUL; the system writes the pointer to what it allocates.
        let made = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &mut descriptor,
                ptr::null_mut(),
            )
        };
        if made == 0 { Err(io::Error::last_os_error()) } else { Ok(Security(Given(descriptor))) }
    }

    /// As the system takes it when something is made; valid as long as this value.
    pub(super) fn attributes(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: self.0.0,
            bInheritHandle: 0,
        }
    }

    /// Whether an object that was opened belongs to this process's user.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn is_own(object: &impl AsRawHandle) -> io::Result<bool> {
        let user = User::of_this_process()?;
        let (mut owner, mut descriptor): (PSID, PSECURITY_DESCRIPTOR) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the handle is open; the system writes pointers: to a descriptor that it allocates, and into it.
        let told = unsafe {
            GetSecurityInfo(
                object.as_raw_handle(),
                SE_KERNEL_OBJECT,
                OWNER_SECURITY_INFORMATION,
                &mut owner,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                &mut descriptor,
            )
        };
        if told != ERROR_SUCCESS {
            return Err(io::Error::from_raw_os_error(told.cast_signed()));
        }
        let _descriptor = Given(descriptor);
        // SAFETY: both are whole SIDs, in memory that is held until the end of this function.
        Ok(!owner.is_null() && unsafe { EqualSid(owner, user.sid()) } != 0)
    }
}

/// A user, as its token names it.
struct User(Vec<u64>);

impl User {
    fn of_this_process() -> io::Result<Self> {
        let mut token: HANDLE = ptr::null_mut();
        // SAFETY: the handle of the process itself is always valid; the system writes a handle that is ours to close.
        let token = unsafe {
            if OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &mut token) == 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedHandle::from_raw_handle(token)
        };
        let mut bytes = 0;
        // SAFETY: with no room given, only the length is written.
        unsafe { GetTokenInformation(token.as_raw_handle(), TokenUser, ptr::null_mut(), 0, &mut bytes) };
        // Of words, so that it is aligned for what is written there.
        let mut words = vec![0u64; (bytes as usize).div_ceil(size_of::<u64>()).max(1)];
        // SAFETY: the buffer has that many bytes.
        let told = unsafe {
            GetTokenInformation(token.as_raw_handle(), TokenUser, words.as_mut_ptr().cast(), bytes, &mut bytes)
        };
        if told == 0 { Err(io::Error::last_os_error()) } else { Ok(User(words)) }
    }

    fn sid(&self) -> PSID {
        // SAFETY: any bits are a `TOKEN_USER`, which has no other than plain fields.
        let mut user: TOKEN_USER = unsafe { zeroed() };
        if self.0.len() * size_of::<u64>() >= size_of::<TOKEN_USER>() {
            // SAFETY: the system wrote one at the beginning of the buffer, which is aligned and long enough.
            user = unsafe { self.0.as_ptr().cast::<TOKEN_USER>().read() };
        }
        user.User.Sid
    }

    fn text(&self) -> io::Result<String> {
        let mut text: *mut u16 = ptr::null_mut();
        // SAFETY: the SID is whole; the system writes the pointer to a text that it allocates.
        if unsafe { ConvertSidToStringSidW(self.sid(), &mut text) } == 0 {
            return Err(io::Error::last_os_error());
        }
        let given = Given(text.cast());
        let mut units = Vec::new();
        // SAFETY: the text ends in a NUL, and nothing behind that is read.
        unsafe {
            while *text.add(units.len()) != 0 {
                units.push(*text.add(units.len()));
            }
        }
        drop(given);
        String::from_utf16(&units).map_err(io::Error::other)
    }
}
