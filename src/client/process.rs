//! A program of a streaming call.

use std::{collections::VecDeque, fmt, future, pin::Pin};

use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::{
    deliver::{Delivery, Event},
    programs::Programs,
};
use crate::pb::{self, run_response, signal_request::Action};

type Call<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// A program of a streaming call. Dropping it ends the program with everything it started.
pub struct Process {
    programs: Programs,
    stage: Stage,
    /// Gone once it has delivered the end.
    delivery: Option<Delivery>,
    /// Delivered before the broker is listened to again.
    ready: VecDeque<Event>,
    closer: Closer,
    is_closing: bool,
    /// The call that ends the tree.
    ending: Option<Call<()>>,
    /// Known once it runs.
    exec_id: Option<String>,
}

/// Ends a program, from wherever that is wanted.
#[derive(Debug, Clone, Default)]
pub struct Closer(CancellationToken);

enum Stage {
    Opening(Call<Streaming<pb::RunResponse>>),
    Open(Box<Streaming<pb::RunResponse>>),
    Over,
}

/// What happened next.
enum Step {
    Opened(Result<Streaming<pb::RunResponse>, Status>),
    Told(Result<Option<pb::RunResponse>, Status>),
    Closed,
    Ended(Result<(), Status>),
}

impl Process {
    pub(super) fn new(programs: Programs, request: pb::RunRequest, line: String, split_output_lines: bool) -> Self {
        let (mut service, request) = (programs.service(), programs.addressed(request));
        let opening = async move { Ok(service.run(request).await?.into_inner()) };
        Process {
            programs,
            stage: Stage::Opening(Box::pin(opening)),
            delivery: Some(Delivery::new(line, split_output_lines)),
            ready: VecDeque::new(),
            closer: Closer::default(),
            is_closing: false,
            ending: None,
            exec_id: None,
        }
    }

    /// What ends it while its events are waited for.
    pub fn closer(&self) -> Closer {
        self.closer.clone()
    }

    /// The next event; `None` behind [`Event::Close`]. While nobody asks, output is held back, and so then is the
    /// program. Giving up a wait loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if self.closer.0.is_cancelled() && !self.is_closing {
                self.close();
            }
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let step = self.step().await?;
            self.take(step);
        }
    }

    /// Waits for whatever comes first; `None` where nothing can come.
    async fn step(&mut self) -> Option<Step> {
        let Process { stage, closer, is_closing, ending, .. } = self;
        let closed = async {
            match is_closing {
                true => future::pending().await,
                false => closer.0.cancelled().await,
            }
        };
        let ended = async {
            match ending {
                Some(ending) => ending.await,
                None => future::pending().await,
            }
        };
        let told = async {
            match stage {
                Stage::Opening(opening) => Some(Step::Opened(opening.await)),
                Stage::Open(events) => Some(Step::Told(events.message().await)),
                Stage::Over => None,
            }
        };
        tokio::select! {
            biased;
            () = closed => Some(Step::Closed),
            ended = ended => Some(Step::Ended(ended)),
            step = told => step,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Opened(Ok(events)) => self.stage = Stage::Open(Box::new(events)),
            Step::Told(Ok(Some(message))) => self.deliver(message.event),
            Step::Told(Ok(None)) => self.finish(None),
            Step::Opened(Err(status)) | Step::Told(Err(status)) => self.finish(Some(&status)),
            Step::Closed => self.close(),
            // It has ended by itself, and the events say so.
            Step::Ended(Err(status)) if status.code() == Code::NotFound => self.ending = None,
            Step::Ended(Ok(())) => self.ending = None,
            // The broker ends what nobody listens to.
            Step::Ended(Err(_)) => self.finish(None),
        }
    }

    fn deliver(&mut self, event: Option<run_response::Event>) {
        if let Some(run_response::Event::Started(started)) = &event {
            self.exec_id = Some(started.exec_id.clone());
        }
        if let (Some(event), Some(delivery)) = (event, &mut self.delivery) {
            delivery.take(event, &mut |event| self.ready.push_back(event));
        }
    }

    fn close(&mut self) {
        self.is_closing = true;
        let Some(delivery) = &mut self.delivery else { return };
        delivery.close();
        self.ready.clear();
        let Some(exec_id) = self.exec_id.clone() else {
            // The broker ends what nobody listens to, also before it runs.
            return self.finish(None);
        };
        let action = Some(Action::End(pb::EndTree::default()));
        let request = self.programs.addressed(pb::SignalRequest { exec_id, action });
        let mut service = self.programs.service();
        self.ending = Some(Box::pin(async move { service.signal(request).await.map(drop) }));
    }

    fn finish(&mut self, lost: Option<&Status>) {
        (self.stage, self.ending) = (Stage::Over, None);
        let Some(delivery) = self.delivery.take() else { return };
        let mut deliver = |event| self.ready.push_back(event);
        match lost {
            Some(status) => delivery.fail(status, &mut deliver),
            None => delivery.finish(&mut deliver),
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("exec_id", &self.exec_id).finish_non_exhaustive()
    }
}

impl Closer {
    /// Ends the program with everything it started: SIGTERM, after a grace time SIGKILL. From now on there is no output;
    /// [`Event::Close`] comes when the program has ended. Does nothing the second time, nor after the end.
    pub fn close(&self) {
        self.0.cancel();
    }
}
