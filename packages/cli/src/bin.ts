/** Runs the `floodgate` command with the services of Node. The commands themselves are in `commands/`. */
import { run } from "@floodgate/gateway/internal/running"
import { main } from "./commands/index.ts"

run(main)
