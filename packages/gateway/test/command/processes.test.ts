import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { restart } from "../../src/command/processes.ts"
import { gateway } from "../support/cli.ts"
import { folder } from "../support/command.ts"
import { services } from "../support/services.ts"

const none = { crashes: 0, failures: 0 }

/** The delays after so many ends in a row. */
const delaysOf = (count: number, hasListened: boolean, lasted: number): ReadonlyArray<number | undefined> => {
  let ends = none
  return Array.from({ length: count }, () => {
    const next = restart(ends, hasListened, lasted)
    ends = next.ends
    return next.delay
  })
}

describe("a process that has ended", () => {
  it("is replaced after 1 s, doubling to 30 s, and after 1 s again if it ran for a minute", () => {
    assert.deepStrictEqual(delaysOf(7, true, 59_999), [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
    assert.deepStrictEqual(delaysOf(3, true, 60_000), [1_000, 1_000, 1_000])
  })

  it("is given up when five in a row could not listen", () => {
    assert.deepStrictEqual(delaysOf(5, false, 100), [1_000, 2_000, 4_000, 8_000, undefined])
    const listened = restart({ crashes: 4, failures: 4 }, true, 100)
    assert.deepStrictEqual(listened, { ends: { crashes: 5, failures: 0 }, delay: 16_000 })
  })
})

describe("--processes", () => {
  const redis = ["--redis", "redis://127.0.0.1:1"]
  const refusedBy = (
    flags: ReadonlyArray<string>,
    says: RegExp,
    { env, settings = {} }: { readonly env?: Record<string, string>; readonly settings?: object } = {}
  ) =>
    Effect.gen(function* () {
      const { inside } = yield* folder
      const config = Path.join(inside, "gateway.json")
      Fs.writeFileSync(config, JSON.stringify(settings))
      const { code, err } = yield* gateway("--port", "0", "--config", config, ...flags)
      assert.strictEqual(code, 2, err)
      assert.match(err.replaceAll(/\s+/g, " "), says)
    }).pipe(Effect.scoped, Effect.provide(services({ env })))

  const secret = "0123456789abcdef"
  it.effect("refuses what several processes cannot share, and says what to do", () =>
    Effect.gen(function* () {
      yield* refusedBy(["--processes", "2"], /--processes needs --redis, such as --redis redis:/)
      yield* refusedBy(
        ["--processes", "2", ...redis, "--state", "state.json"],
        /--state does not go .* leave --state out/
      )
      yield* refusedBy(["--processes", "2", ...redis, "--record", "a.csv"], /--record does not go .* with one process/)
      yield* refusedBy(["--processes", "2", ...redis], /gateway\.json: adminToken does not go .* so remove it/, {
        settings: { adminToken: secret }
      })
      yield* refusedBy(["--processes", "2", ...redis], /FLOODGATE_GATEWAY_REQUESTS_TOKEN does not go .* so remove it/, {
        env: { FLOODGATE_GATEWAY_REQUESTS_TOKEN: secret }
      })
    })
  )

  it.effect("takes a number or all", () =>
    Effect.gen(function* () {
      for (const wrong of ["0", "-1", "1.5", "257", "some", "0x2", ""]) {
        yield* refusedBy([`--processes=${wrong}`], /--processes.* a whole number from 1 to 256, or "all"/)
      }
      // One process may have all that several cannot: only the file is wrong.
      const { inside } = yield* folder
      const state = Path.join(inside, "state.json")
      Fs.writeFileSync(state, "{")
      const { code, err } = yield* gateway("--processes", "1", "--state", state).pipe(Effect.provide(services()))
      assert.strictEqual(code, 3, err)
    })
  )
})
