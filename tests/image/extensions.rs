//! Every extension that the full image offers can be created; docs/extensions.md is made from that.
