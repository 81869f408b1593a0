// A store of one's own: processes on one machine share a budget in a file, by the SQLite that Node brings along.
//     npm run -s example examples/sqlite-store.ts
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"

// -----------------------------------------------------------------------------
// The store
// -----------------------------------------------------------------------------

const schema = `
  CREATE TABLE IF NOT EXISTS budgets (key TEXT PRIMARY KEY, version TEXT, value TEXT, at INTEGER, expires INTEGER);
  PRAGMA journal_mode = wal;
  PRAGMA synchronous = normal;
`
const isBusy = (error: BudgetStore.StoreError): boolean => String(error.cause).includes("database is locked")

/** Processes that name the same file share their budgets. */
export const make = Effect.fnUntraced(function* (file: string) {
  const run = <A>(work: () => A) =>
    Effect.try({ try: work, catch: (cause) => new BudgetStore.StoreError({ cause }) }).pipe(
      // Another process writes. SQLite could wait for it, but it would hold up this whole process for that time.
      Effect.retry({ while: isBusy, schedule: Schedule.jittered(Schedule.spaced("2 millis")) })
    )
  const database = yield* Effect.acquireRelease(
    run(() => new DatabaseSync(file, { timeout: 0 })),
    (database) => Effect.sync(() => database.close())
  )
  yield* run(() => database.exec(schema))
  yield* run(() => database.prepare("DELETE FROM budgets WHERE expires < ?").run(Date.now()))
  const select = database.prepare("SELECT version, value, at FROM budgets WHERE key = ?")
  const insert = database.prepare("INSERT INTO budgets VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
  const update = database.prepare(
    "UPDATE budgets SET version = ?, value = ?, at = ?, expires = ? WHERE key = ? AND version = ?"
  )

  const read = (key: string): BudgetStore.Stored | undefined => {
    const row = select.get(key)
    if (row === undefined) return undefined
    return { version: String(row.version), value: String(row.value), ageMillis: Date.now() - Number(row.at) }
  }
  const store: BudgetStore.Store = {
    read: (key) => run(() => read(key)),
    // A statement is atomic for all processes: a process that is killed in the middle of it has changed nothing.
    swap: (key, expected, next, keepMillis) =>
      run(() => {
        const { value, version } = next
        const now = Date.now()
        const { changes } =
          expected === undefined
            ? insert.run(key, version, value, now, now + keepMillis)
            : update.run(version, value, now, now + keepMillis, key, expected)
        return changes === 1 ? next : read(key)
      })
  }
  return store
})

export const layer = (file: string, options?: BudgetStore.Options) =>
  Layer.unwrap(Effect.map(make(file), (store) => BudgetStore.layer(store, options)))

// -----------------------------------------------------------------------------
// Two processes that use it
// -----------------------------------------------------------------------------

// 20,000 tokens a second, and 20,000 at once, for both together.
const limits = { tokens: { perSecond: 20_000, burst: 20_000 } }

const worker = (name: string, file: string) =>
  Effect.gen(function* () {
    const calls = Effect.forEach(Array.from({ length: 10 }), () => Budget.consume(4_000), { concurrency: "unbounded" })
    const [elapsed] = yield* Effect.timed(calls)
    yield* Console.log(`${name}: 40,000 tokens in ${Duration.toSeconds(elapsed).toFixed(1)} s`)
  }).pipe(Effect.provide(Budget.layer({ limits }).pipe(Layer.provide(layer(file, { name })))))

const child = (...args: ReadonlyArray<string>) =>
  Effect.promise(() =>
    once(spawn(process.execPath, [...process.execArgv, import.meta.filename, ...args], { stdio: "inherit" }), "exit")
  )

const parent = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "floodgate-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )
  const file = join(folder, "budgets.sqlite")
  yield* Effect.forEach(["one", "two"], (name) => child(name, file), { concurrency: "unbounded" })
}).pipe(Effect.scoped)

if (import.meta.main) {
  const [name, file] = process.argv.slice(2)
  await Effect.runPromise(name === undefined ? parent : worker(name, file!))
}
