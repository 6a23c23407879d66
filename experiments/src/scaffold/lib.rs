//! A plugin for Limbeck. What it does is on its page, at the head of its file.

mod my_role;

pub use my_role::MyPlugin;
