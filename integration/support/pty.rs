//! Terminals made by tests, and sockets that terminals come over.
