/** The `floodgate` command within the test's process. */
import { called } from "../../../gateway/test/support/cli.ts"
import { runWith } from "../../src/commands/index.ts"

export const floodgate = called(runWith)
