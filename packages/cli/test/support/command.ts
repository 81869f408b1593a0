/** The `floodgate` command as a process. */
import { resolve } from "node:path"
import { commandAt } from "../../../gateway/test/support/command.ts"

export { type Ran, filesIn, folder } from "../../../gateway/test/support/command.ts"
export const { run, start } = commandAt(resolve(import.meta.dirname, "../../src/bin.ts"))
