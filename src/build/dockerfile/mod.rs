//! The Dockerfile language: lexer, parser, typed instructions, word expansion. Given text and lookups, opens no file.
