/**
 * What one governed call costs: `npm run -s bench -- call`.
 *
 * - **time**: `LlmClient.create` over a provider that answers at once, minus that provider alone, in processor time, which
 *   other load affects little: of a client without places, and of one with a single place. All take turns in one process; the result
 *   is the median of the rounds.
 * - **memory**: what a queued call keeps alive, its fiber included, beside a fiber that only sleeps.
 *
 * `--path` shows instead what a warm call runs through: the files and functions of `src/`, the calls of them by V8's coverage, and the
 * hand-overs, which are calls from another file. These are means of a hundred calls, 10 ms apart in simulated time, because what is
 * learned from headers depends on the time between them. `test/client/path.system.test.ts` limits them.
 */
import { join } from "node:path"
import { pathToFileURL } from "node:url"

if (process.argv.includes("--path")) {
  const source = pathToFileURL(join(import.meta.dirname, "../src/")).href
  const { noteHandOvers } = await import("./call/handOvers.ts")
  noteHandOvers(source)
  const { printPath } = await import("./call/path.ts")
  await printPath(source)
} else {
  const { printCost } = await import("./call/cost.ts")
  await printCost()
}
