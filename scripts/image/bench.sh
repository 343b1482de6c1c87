#!/usr/bin/env bash
# `make bench-image`: what the image costs, into docs/image-benchmarks.md. Some minutes, on a machine that does nothing else:
# on a busy one it measures nothing. Images are built, or named, as for test.sh.
SUPAFLY_TEST_THREADS=1 exec "$(dirname "$0")/test.sh" --ignored what_the_image_costs
