/**
 * A browser for tests of pages: Chromium or Chrome in the usual places on Linux, or the one that `CHROMIUM` names.
 */
import { existsSync } from "node:fs"

const candidates =
  process.env.CHROMIUM === undefined
    ? ["chromium", "chromium-browser", "google-chrome"].map((name) => `/usr/bin/${name}`)
    : [process.env.CHROMIUM]

const found = candidates.find((path) => existsSync(path))
export const executablePath = found ?? candidates[0]!

/** Why tests that need a browser are skipped, or undefined. */
export const skipped = found === undefined ? `there is no ${candidates.join(" or ")}` : undefined
if (skipped !== undefined && process.env.CI) throw new Error(`${skipped}: on CI these tests have to run`)
