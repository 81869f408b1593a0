/** Colours of charts and pages, light and dark. */

const light =
  "--paper:#ffffff;--panel:#f6f7f9;--ink:#1c2330;--muted:#5b6677;--line:#d5dae2;--on:#ffffff;" +
  "--good:#12805c;--bad:#c62f3a;--wait:#c9d2df;--c1:#3566c4;--c2:#b35c00;--c3:#7a4fbf;--c4:#12805c;--c5:#5b6677;--c6:#a8347a;--c7:#0f7f94;--c8:#8a6d00;--early:#9db7e6"

const dark =
  "--paper:#12161d;--panel:#1b212b;--ink:#e6eaf0;--muted:#9aa6b6;--line:#353e4c;--on:#10141a;" +
  "--good:#4cc79a;--bad:#ff7b7f;--wait:#3d4859;--c1:#7ea6f5;--c2:#f0a352;--c3:#bd9cf2;--c4:#4cc79a;--c5:#9aa6b6;--c6:#f08ac4;--c7:#5cc8dc;--c8:#d9bd4a;--early:#46618f"

/** The CSS variables for a selector, by what the reader prefers. */
export const variables = (selector: string): string =>
  `${selector}{${light}}@media (prefers-color-scheme:dark){${selector}{${dark}}}`
