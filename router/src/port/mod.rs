//! How frames enter and leave this process.
