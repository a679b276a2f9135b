//! Log lines: one message, one line, one write, with the level in front as in sd-daemon(3).
//!
//! init reads them from the pipe that is our stderr; it adds the name of the service.

use std::{
    fmt::{Arguments, Write as _},
    io::Write as _,
};

/// How much a line matters; the numbers are those of syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The daemon cannot do its work.
    Error = 3,
    /// The farmer may want to act. Shown on the console, like errors.
    Warning = 4,
    /// Something changed on the node.
    Info = 6,
}

/// Logs that the daemon cannot do its work.
#[macro_export]
macro_rules! error {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Error, ::core::format_args!($($message)*))
    };
}

/// Logs what the farmer may want to act on.
#[macro_export]
macro_rules! warn {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Warning, ::core::format_args!($($message)*))
    };
}

/// Logs that something changed on the node.
#[macro_export]
macro_rules! info {
    ($($message:tt)*) => {
        $crate::log::write($crate::log::Level::Info, ::core::format_args!($($message)*))
    };
}

/// Writes one line to stderr. Use the macros.
pub fn write(level: Level, message: Arguments<'_>) {
    // Without a reader there is nobody to tell that nobody reads.
    drop(std::io::stderr().write_all(line(level, message).as_bytes()));
}

fn line(level: Level, message: Arguments<'_>) -> String {
    let mut line = format!("<{}>", level as u8);
    for (number, part) in message.to_string().lines().enumerate() {
        let separator = if number == 0 { "" } else { " | " };
        write!(line, "{separator}{part}").expect("a String takes everything");
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_its_level() {
        assert_eq!(line(Level::Warning, format_args!("disk {} slow", "vda")), "<4>disk vda slow\n");
        assert_eq!(line(Level::Info, format_args!("a\nb\n")), "<6>a | b\n");
        assert_eq!(line(Level::Error, format_args!("")), "<3>\n");
    }
}
