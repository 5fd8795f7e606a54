#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the tests of the fleetctl program; `make check` sets srcdir and stands in the build folder.
exec "${PYTHON3:-python3}" -B "${srcdir:-.}/tests/ctl/test_ctl.py" "${FLEETCTL:-fleetctl/fleetctl}"
