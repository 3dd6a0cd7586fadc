//! The one error value: a reason out of a closed list, whom it concerns, and what to do.
//!
//! Every failure that a caller can see has a [`Reason`]; the reason fixes its [`Kind`], and the API maps kinds to gRPC
//! codes in one place. A message is lower case, says what was wrong and what would be right, and holds no secret.

use std::{error::Error as StdError, fmt, time::Duration};

use super::grant::Need;

/// When to try an engine again that did not answer.
pub const ENGINE_RETRY: Duration = Duration::from_secs(2);

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is; each maps to one gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong and stays wrong.
    Invalid,
    /// It does not exist, or the caller may not see it.
    NotFound,
    /// A name or id is taken.
    Exists,
    /// It exists in a state that does not allow this.
    State,
    /// Something else is going on with it; try again.
    Busy,
    /// Not granted.
    Denied,
    /// There is no such method.
    Unknown,
    /// A limit was reached.
    Exhausted,
    /// The engine, a backend or the broker itself is away.
    Unavailable,
    /// A position in a stream that is not held any more.
    Gone,
    /// Time ran out.
    Timeout,
    /// The store is damaged.
    DataLoss,
    /// A bug, or a machine that fails us.
    Internal,
}

/// Declares [`Reason`] with its wire name, kind and documentation in one table.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $wire:literal => $kind:ident;)+) => {
        /// Why a call failed; travels as `google.rpc.ErrorInfo.reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason there is, for documentation and its test.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $wire,)+ }
            }

            /// The sort of failure.
            pub fn kind(self) -> Kind {
                match self { $(Reason::$name => Kind::$kind,)+ }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// A field of the request is missing or out of its range.
    RequestInvalid = "REQUEST_INVALID" => Invalid;
    /// An image reference cannot be read.
    ReferenceInvalid = "REFERENCE_INVALID" => Invalid;
    /// A page token is not one that this broker gave out.
    PageTokenInvalid = "PAGE_TOKEN_INVALID" => Invalid;
    /// What happened since a resume token is not known any more; list again, and watch from there.
    ResumeTokenExpired = "RESUME_TOKEN_EXPIRED" => Gone;
    /// The name of a grant is not one that exists.
    GrantInvalid = "GRANT_INVALID" => Invalid;
    /// No extension of that id is installed.
    ExtensionNotFound = "EXTENSION_NOT_FOUND" => NotFound;
    /// An extension of that id is installed from another image or under another reference, or a directory is to be installed.
    ExtensionInstalled = "EXTENSION_INSTALLED" => Exists;
    /// Another call is changing that extension.
    ExtensionBusy = "EXTENSION_BUSY" => Busy;
    /// The extension lacks grants that this needs; the detail lists them, as many as fit into 2.5 KiB.
    GrantsRequired = "GRANTS_REQUIRED" => Denied;
    /// A grant that reaches beyond the user, or an archive, which in system mode only root may accept, or whoever is trusted to.
    GrantReserved = "GRANT_RESERVED" => Denied;

    /// The image is not in the engine and no registry gave it.
    ImageNotFound = "IMAGE_NOT_FOUND" => NotFound;
    /// A registry refused or broke off a pull.
    PullFailed = "PULL_FAILED" => Unavailable;
    /// An archive or directory cannot be read.
    SourceUnreadable = "SOURCE_UNREADABLE" => Invalid;
    /// `metadata.json` is missing or wrong; the message names the field.
    ManifestInvalid = "MANIFEST_INVALID" => Invalid;
    /// The image is built for another operating system or processor.
    PlatformMismatch = "PLATFORM_MISMATCH" => State;
    /// The image holds a file that may not be copied out of it.
    UnsafeFile = "UNSAFE_FILE" => Invalid;
    /// The compose file is wrong, or asks for what is refused; the message names the field.
    ComposeInvalid = "COMPOSE_INVALID" => Invalid;
    /// Compose or the engine could not bring the services up.
    ComposeFailed = "COMPOSE_FAILED" => State;
    /// No usable Compose v2 was found.
    ComposeUnavailable = "COMPOSE_UNAVAILABLE" => State;
    /// The engine shares no directory with the broker, and the extension needs one (`subject` is the field): its compose file mounts what lies beside it, or it has a backend and the broker runs on Windows.
    EngineApart = "ENGINE_APART" => State;
    /// Containers, networks or volumes of somebody else carry the extension's project name.
    ProjectNameTaken = "PROJECT_NAME_TAKEN" => Exists;
    /// The backend ended before it was ready.
    BackendExited = "BACKEND_EXITED" => State;

    /// The engine does not answer.
    EngineUnavailable = "ENGINE_UNAVAILABLE" => Unavailable;
    /// The engine answered with an error.
    EngineRefused = "ENGINE_REFUSED" => State;
    /// The engine has no such container, network or volume.
    ResourceNotFound = "RESOURCE_NOT_FOUND" => NotFound;
    /// A name, or the beginning of an id, fits more than one object.
    ResourceAmbiguous = "RESOURCE_AMBIGUOUS" => Invalid;

    /// The extension has no backend.
    NoBackend = "NO_BACKEND" => State;
    /// The extension's manifest exposes no socket, or its backend runs and has not made it.
    NoSocket = "NO_SOCKET" => State;
    /// The backend has no service of that name.
    ServiceNotFound = "SERVICE_NOT_FOUND" => NotFound;
    /// The backend is not running: disabled, stopped or never built.
    BackendStopped = "BACKEND_STOPPED" => State;
    /// The backend does not listen yet; nothing was sent.
    BackendStarting = "BACKEND_STARTING" => Unavailable;
    /// The backend's socket refuses connections; nothing was sent.
    BackendRefused = "BACKEND_REFUSED" => Unavailable;
    /// The broker cannot reach the backend's socket; nothing was sent.
    BackendUnreachable = "BACKEND_UNREACHABLE" => State;
    /// The backend closed the connection before the response head was complete.
    BackendBrokeBeforeHead = "BACKEND_BROKE_BEFORE_HEAD" => Unavailable;
    /// The backend closed the connection in the middle of the response body.
    BackendBrokeInBody = "BACKEND_BROKE_IN_BODY" => Unavailable;
    /// The backend did not answer in time.
    BackendTooSlow = "BACKEND_TOO_SLOW" => Timeout;
    /// The backend answered something that is not HTTP.
    ResponseInvalid = "RESPONSE_INVALID" => Internal;
    /// The response body is larger than the call allows.
    BodyTooLarge = "BODY_TOO_LARGE" => Exhausted;
    /// A path or URL is refused.
    PathInvalid = "PATH_INVALID" => Invalid;
    /// A header is refused.
    HeaderInvalid = "HEADER_INVALID" => Invalid;
    /// An HTTP method is not a token.
    MethodInvalid = "METHOD_INVALID" => Invalid;
    /// What lies in the shared directory under the socket's name is not a socket of the extension.
    GuestPathUnsafe = "GUEST_PATH_UNSAFE" => State;
    /// No endpoint of that name is registered, or it speaks another protocol than the call.
    EndpointNotFound = "ENDPOINT_NOT_FOUND" => NotFound;
    /// Another service of the extension offers an endpoint of that name.
    EndpointTaken = "ENDPOINT_TAKEN" => Exists;
    /// A newer instance of the same backend has registered; the older one shall not come back.
    RegistrationSuperseded = "REGISTRATION_SUPERSEDED" => State;
    /// The broker speaks none of the versions that the backend does.
    VersionUnsupported = "VERSION_UNSUPPORTED" => State;

    /// The argument list is empty or holds what a program cannot be given.
    ArgvInvalid = "ARGV_INVALID" => Invalid;
    /// The container is paused.
    ContainerPaused = "CONTAINER_PAUSED" => State;
    /// No such program runs, or it belongs to somebody else.
    ExecNotFound = "EXEC_NOT_FOUND" => NotFound;
    /// There is no signal of that name.
    SignalInvalid = "SIGNAL_INVALID" => Invalid;
    /// This broker is set up to run no programs on its machine (`host_programs`).
    HostProgramsOff = "HOST_PROGRAMS_OFF" => State;
    /// There is no docker command line on the broker's machine.
    DockerCliNotFound = "DOCKER_CLI_NOT_FOUND" => State;
    /// The broker's helper cannot run in that container.
    ShimUnavailable = "SHIM_UNAVAILABLE" => State;

    /// This broker has no such method, or the message cannot be read that way.
    MethodUnknown = "METHOD_UNKNOWN" => Unknown;
    /// The deadline that the caller set for the call has passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED" => Timeout;
    /// The caller may not use this socket.
    CallerRefused = "CALLER_REFUSED" => Denied;
    /// The session's token is not known: it has ended, or never was.
    SessionUnknown = "SESSION_UNKNOWN" => Denied;
    /// A session may not do this, or not for this extension.
    SessionScope = "SESSION_SCOPE" => Denied;
    /// The session has ended, and with it what was started in it.
    SessionEnded = "SESSION_ENDED" => Unavailable;
    /// The broker is shutting down.
    ShuttingDown = "SHUTTING_DOWN" => Unavailable;
    /// Descriptors or memory ran short, and accepted work goes on; or a backend registers more endpoints than it may (`subject` is `endpoints`).
    LimitReached = "LIMIT_REACHED" => Exhausted;
    /// The configuration is wrong.
    ConfigInvalid = "CONFIG_INVALID" => Invalid;
    /// A broker is running already on this socket or data directory.
    AlreadyRunning = "ALREADY_RUNNING" => Exists;
    /// The store is damaged, or not there though extensions are; it was left as it is: run `longshore repair` on it.
    StoreDamaged = "STORE_DAMAGED" => DataLoss;
    /// The store was written by a newer version of the broker; it was left as it is.
    StoreNewer = "STORE_NEWER" => State;
    /// The store cannot be written: full disk, rights.
    StoreUnwritable = "STORE_UNWRITABLE" => Internal;
    /// A file of the broker's own could not be read or written.
    FileFailed = "FILE_FAILED" => Internal;
    /// A bug in the broker.
    Bug = "BUG" => Internal;
}

/// More than a reason can say; travels as a typed error detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// The grants that are missing.
    GrantsRequired(Vec<Need>),
    /// A response whose body was too large: its status and headers, and the limit in bytes.
    BodyTooLarge {
        /// HTTP status.
        status: u16,
        /// Header lines in order.
        headers: Vec<(String, Vec<u8>)>,
        /// The limit that was passed.
        max_body_bytes: u64,
    },
}

/// A failure, as every part of the broker reports it.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Reason,
    subject: String,
    message: String,
    retry_after: Option<Duration>,
    sent: Option<bool>,
    detail: Option<Detail>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `subject` (an extension id, a path, a field; may be empty). An engine that is away can be tried again
    /// after [`ENGINE_RETRY`].
    pub fn new(reason: Reason, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            reason,
            subject: subject.into(),
            message: message.into(),
            retry_after: (reason == Reason::EngineUnavailable).then_some(ENGINE_RETRY),
            sent: None,
            detail: None,
            source: None,
        }))
    }

    /// A bug: the message goes to the log, the caller sees a constant text.
    pub fn bug(message: impl Into<String>) -> Self {
        Error::new(Reason::Bug, "", message)
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says that trying again after this long can help.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Says whether any of the request reached the backend.
    #[must_use]
    pub fn sent(mut self, sent: bool) -> Self {
        self.0.sent = Some(sent);
        self
    }

    /// Adds a typed detail.
    #[must_use]
    pub fn with_detail(mut self, detail: Detail) -> Self {
        self.0.detail = Some(detail);
        self
    }

    /// The same failure, told to another caller; its cause is in the log once.
    #[must_use]
    pub fn again(&self) -> Self {
        let Inner { reason, subject, message, retry_after, sent, detail, .. } = &*self.0;
        Error(Box::new(Inner {
            reason: *reason,
            subject: subject.clone(),
            message: message.clone(),
            retry_after: *retry_after,
            sent: *sent,
            detail: detail.clone(),
            source: None,
        }))
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// What sort.
    pub fn kind(&self) -> Kind {
        self.0.reason.kind()
    }

    /// Whom it concerns; may be empty.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What was wrong and what would be right.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// When to try again, where that can help.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether any of a request reached the backend; `None` where there was no request.
    pub fn was_sent(&self) -> Option<bool> {
        self.0.sent
    }

    /// The typed detail, if any.
    pub fn detail(&self) -> Option<&Detail> {
        self.0.detail.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
