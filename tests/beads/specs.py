"""The files of a feature that was specified well, as `beads/formulas/spec.toml` asks for them."""

CONSTITUTION = """\
# Constitution

### Standard library only

Code MUST need nothing but Python, so that it runs everywhere.

**Version**: 1.0.0 | **Ratified**: 2026-01-02 | **Last Amended**: 2026-01-02
"""

SPEC = """\
# Feature Specification: Photo albums

## User Scenarios & Testing

### User Story 1 - Albums (Priority: P1)

Photos without albums are a heap.

**Independent Test**: List the albums of a directory with two of them.

1. **Given** two directories with photos, **When** albums are listed, **Then** there are two.

### User Story 2 - Sharing (Priority: P2)

**Independent Test**: Export one.

1. **Given** an album, **When** it is exported, **Then** there is one file.

## Requirements

- **FR-001**: The program MUST list albums by name.
- **FR-002**: The program MUST export an album as one file.

## Success Criteria

- **SC-001**: A thousand albums are listed within a second.

## Clarifications

### Session 2026-01-02

- Q: How are albums sorted? → A: By name.

## Assumptions

- A photo is a file that ends in .jpg, see [JPEG](https://jpeg.org/jpeg/).
"""

CHECKLIST = """\
# Requirements

- [x] CHK001 Is it said how albums are sorted? (FR-001)
- [x] CHK002 Is it said what a photo is?
- [X] CHK003 Is it said what is exported? (FR-002)
- [x] CHK004 Can "within a second" be measured? (SC-001)
- [x] CHK005 Is nothing said twice?
"""

PLAN = """\
# Implementation Plan: Photo albums

## Summary

One module that walks directories.

## Technical Context

**Language/Version**: Python 3.11
**Testing**: sh check.sh

## Constitution Check

Standard library only: kept.

## Project Structure

    albums.py
"""

RESEARCH = "**Decision**: tar files\n**Rationale**: they stream\n**Alternatives considered**: zip\n"

TASKS = """\
# Tasks: Photo albums

## Phase 1: Setup

- [ ] T001 Create parts/albums.txt

## Phase 2: User Story 1 - Albums (Priority: P1)

- [ ] T002 [P] [US1] List albums in parts/list.txt

**Checkpoint**: `sh check.sh` passes

## Phase 3: User Story 2 - Sharing (Priority: P2)

- [ ] T003 [US2] Export an album in parts/export.txt

**Checkpoint**: `sh check.sh` passes

## Phase N: Polish

- [ ] T004 Say how in parts/readme.txt
"""

ANALYSIS = """\
# Analysis

## Findings

- LOW: "photo" is only defined under Assumptions.

## Coverage

| requirement | tasks |
|---|---|
| FR-001 | T002 |
| FR-002 | T003 |
| SC-001 | T002 |
"""

NAME = "001-photo-albums"

FILES = {
    "specify": {"spec.md": SPEC},
    "clarify": {"spec.md": SPEC},
    "settle": {"spec.md": SPEC},
    "checklist": {"checklists/requirements.md": CHECKLIST},
    "plan": {"plan.md": PLAN, "research.md": RESEARCH, "quickstart.md": "    python albums.py .\n"},
    "tasks": {"tasks.md": TASKS},
    "analyze": {"analysis.md": ANALYSIS},
}
"""What each phase leaves, as paths below ``specs/NAME``."""
