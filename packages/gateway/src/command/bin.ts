/** Runs the `floodgate-gateway` command with the services of Node. */
import { run } from "../terminal/running.ts"
import { main } from "./index.ts"

run(main)
