/** One process that counts in a SQLite file, under a name of its own, up to a number. */
import * as Effect from "effect/Effect"
import * as Sqlite from "../../examples/sqlite-store.ts"

const [file, most] = process.argv.slice(2)
const me = `p${process.pid}`

const program = Effect.gen(function* () {
  const store = yield* Sqlite.make(file!)
  let before = yield* store.read("count")
  for (let done = 0, turn = 0; done < Number(most); turn++) {
    const counts = JSON.parse(before?.value ?? "{}") as Record<string, number>
    // Its last value is still stored, whatever other processes have stored since.
    if ((counts[me] ?? 0) !== done) throw new Error(`${me} has counted to ${done}, and the file says ${counts[me]}`)
    const next = { version: `${me}.${turn}`, value: JSON.stringify({ ...counts, [me]: done + 1 }) }
    const now = yield* store.swap("count", before?.version, next, 60_000)
    if (now?.version === next.version) {
      done++
      if (done === 1) console.log("counts")
    }
    before = now
  }
}).pipe(Effect.scoped)

await Effect.runPromise(program)
