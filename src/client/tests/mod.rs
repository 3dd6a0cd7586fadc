//! The rules against what real extensions pass, against each other, and against plainer forms of themselves.

mod calls;
mod events;
mod shapes;
mod texts;
