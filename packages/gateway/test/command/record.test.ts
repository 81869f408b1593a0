import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as PlatformError from "effect/PlatformError"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as TestConsole from "effect/testing/TestConsole"
import * as Record from "../../src/command/record.ts"
import { services } from "../support/services.ts"

const headerOf04 = "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds\n"
const header =
  "TIMESTAMP,ContextTokens,GeneratedTokens,Model,Agent,WaitSeconds,Session,Parent,CachedTokens,CacheWrittenTokens,PauseSeconds,AnswerSeconds\n"

const call = (at: number, agent = `agent-${at}`) => ({
  at,
  model: "m",
  agent,
  inputTokens: 10,
  cachedTokens: 7,
  cacheWrittenTokens: 2,
  outputTokens: 5,
  waitedMillis: 1_234,
  answeredMillis: 2_500,
  pauseMillis: 500,
  sessionId: "5e55",
  agentId: `a${at}`,
  parentId: "a0"
})
const timeOf = (at: number) => new Date(at).toISOString().replace("T", " ").replace("Z", "")
const lineOf04 = (at: number) => `${timeOf(at)},10,5,m,a${at},1.234`
const line = (at: number) => `${lineOf04(at)},5e55,a0,7,2,0.500,2.500\n`

/** A file system with limited room for appended data. */
const diskWith = (disk: { room: number }) =>
  Layer.effect(
    FileSystem.FileSystem,
    Effect.map(FileSystem.FileSystem, (fs) => ({
      ...fs,
      open: (...args: Parameters<FileSystem.FileSystem["open"]>) =>
        Effect.map(fs.open(...args), (file) => {
          const written = (bytes: Uint8Array) =>
            Effect.suspend(() => {
              const part = bytes.subarray(0, disk.room)
              disk.room -= part.length
              if (part.length > 0) return file.write(part)
              const cause = Object.assign(new Error("no space left"), { code: "ENOSPC" })
              return Effect.fail(
                PlatformError.systemError({ module: "FileSystem", method: "write", _tag: "Unknown", cause })
              )
            })
          // Like the real one, it writes until everything is written or a write fails.
          const writeAll = (bytes: Uint8Array): Effect.Effect<void, PlatformError.PlatformError> =>
            Effect.flatMap(written(bytes), (count) =>
              count < bytes.length ? writeAll(bytes.subarray(count)) : Effect.void
            )
          return Object.assign(Object.create(file) as FileSystem.File, { write: written, writeAll })
        })
    }))
  )

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

/** Passes time until a condition holds: files are written in real time. */
const until = <E>(holds: Effect.Effect<boolean, E>) =>
  Effect.gen(function* () {
    while (!(yield* holds)) yield* Effect.andThen(TestClock.adjust("1 second"), turn)
  })

const around = <A, E>(
  test: (path: string, disk: { room: number }) => Effect.Effect<A, E, FileSystem.FileSystem | Scope.Scope>
) => {
  const disk = { room: Infinity }
  return Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    return yield* test(`${yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })}/trace.csv`, disk)
  }).pipe(Effect.scoped, Effect.provide(diskWith(disk)), Effect.provide(services()))
}

const said = Effect.map(TestConsole.errorLines, (lines) => lines.join("\n"))

describe("the trace of a gateway", () => {
  for (const room of [0, 1, line(1).length - 1, line(1).length, line(1).length + 1, 2 * line(1).length + 7]) {
    it.effect(`has each call in a line of its own after the disk was full: ${room} bytes of room`, () =>
      around((path, disk) =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const scope = yield* Scope.make()
          const record = yield* Scope.provide(Record.open(path), scope)
          disk.room = room
          for (const at of [1, 2, 3]) record(call(at))
          yield* until(Effect.map(TestConsole.errorLines, (lines) => lines.length === 1))
          record(call(4))
          yield* until(Effect.succeed(true))
          // Whoever reads the trace while the disk is full finds whole lines.
          assert.match(yield* fs.readFileString(path), /\n$/)
          disk.room = Infinity
          yield* until(Effect.map(fs.readFileString(path), (text) => text.length > header.length + 3 * line(1).length))
          record(call(5))
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual(yield* fs.readFileString(path), header + [1, 2, 3, 4, 5].map(line).join(""))
          assert.match(yield* said, /trace\.csv: the disk is full: calls are kept in memory\n.*0 calls are missing/)
        })
      )
    )
  }

  it.effect("reports at its end how many calls it could not write, without those that it wrote", () =>
    around((path, disk) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const scope = yield* Scope.make()
        const record = yield* Scope.provide(Record.open(path), scope)
        disk.room = 2 * line(1).length + 7
        for (const at of [1, 2, 3, 4, 5]) record(call(at))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* fs.readFileString(path), header + line(1) + line(2))
        assert.match(yield* said, /trace\.csv: 3 calls are missing in it$/)
        disk.room = Infinity
        yield* Effect.scoped(Effect.map(Record.open(path), (record) => record(call(6))))
        assert.strictEqual(yield* fs.readFileString(path), header + line(1) + line(2) + line(6))
      })
    )
  )

  it.effect("removes an incomplete line that a killed gateway has left", () =>
    around((path) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        yield* fs.writeFileString(path, header + line(1) + line(2).slice(0, 7))
        yield* Effect.scoped(Effect.map(Record.open(path), (record) => record(call(3))))
        assert.strictEqual(yield* fs.readFileString(path), header + line(1) + line(3))
        assert.match(yield* said, /trace\.csv ended with an incomplete line, which was removed$/)
      })
    )
  )

  for (const before of [undefined, "", header + line(1)]) {
    it.effect(
      `can be read by its owner only, ${before === undefined ? "if it is new" : `after ${before.length} bytes`}`,
      () =>
        around((path) =>
          Effect.gen(function* () {
            const fs = yield* FileSystem.FileSystem
            if (before !== undefined) {
              yield* fs.writeFileString(path, before)
              yield* fs.chmod(path, 0o644)
            }
            yield* Effect.scoped(Effect.map(Record.open(path), (record) => record(call(2))))
            assert.strictEqual((yield* fs.stat(path)).mode & 0o777, 0o600)
          })
        )
    )
  }

  it.effect(
    "continues after any beginning of a trace, and loses no complete line",
    () =>
      around((path) =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const before = header + line(1) + line(2)
          for (let length = 0; length <= before.length; length++) {
            yield* fs.writeFileString(path, before.slice(0, length))
            yield* Effect.scoped(Effect.map(Record.open(path), (record) => record(call(3))))
            // A line without its newline is complete.
            const whole = [header + line(1) + line(2), header + line(1), header].find(
              (text) => text.length <= length + 1
            )
            assert.strictEqual(yield* fs.readFileString(path), (whole ?? header) + line(3), String(length))
          }
        })
      ),
    { tags: "full" }
  )

  it.effect("leaves the parent and the pause of a first call empty, and has no name of an agent", () =>
    around((path) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const first = { ...call(1, "nightly-review"), parentId: undefined, pauseMillis: undefined }
        yield* Effect.scoped(Effect.map(Record.open(path), (record) => record(first)))
        assert.strictEqual(yield* fs.readFileString(path), `${header}${lineOf04(1)},5e55,,7,2,,2.500\n`)
      })
    )
  )

  it.effect("continues a trace of 0.4 in its own columns, and says what it lacks", () =>
    around((path) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const old = `${headerOf04}${timeOf(1)},10,5,m,a-name-in-clear,1.234\n`
        yield* fs.writeFileString(path, old)
        yield* Effect.scoped(Effect.map(Record.open(path), (record) => record(call(2))))
        assert.strictEqual(yield* fs.readFileString(path), `${old}${lineOf04(2)}\n`)
        assert.match(yield* said, /was begun by version 0\.4, so its calls have no sessions: record to a new file/)
        // One without calls becomes a new one.
        yield* fs.writeFileString(path, headerOf04)
        yield* Effect.scoped(Effect.map(Record.open(path), (record) => record(call(2))))
        assert.strictEqual(yield* fs.readFileString(path), header + line(2))
      })
    )
  )

  it.effect("is bounded in its lines, whatever names callers choose", () =>
    around((path) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        yield* Effect.scoped(
          Effect.map(Record.open(path), (record) => record({ ...call(1, "a".repeat(1e6)), model: "m".repeat(1e6) }))
        )
        assert.isBelow((yield* fs.readFileString(path)).length, 1_000)
      })
    )
  )
})
