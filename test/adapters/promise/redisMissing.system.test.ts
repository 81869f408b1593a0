/** `floodgate/promise` in a project without the package of its store. */
import { assert, describe, it } from "@effect/vitest"
import { runWithout } from "../../support/withoutPackage.ts"

describe("the option redis of floodgate/promise", () => {
  it("says without its package what to install, and all else works", () => {
    const { stderr, stdout } = runWithout(
      "@floodgate/redis",
      `import * as Floodgate from "floodgate/promise"
const call = (floodgate) => floodgate.run({ model: "m" }, async () => "answer")
const floodgate = Floodgate.create({ redis: "redis://:secret@127.0.0.1:1" })
const error = await call(floodgate).catch((error) => error)
console.log(JSON.stringify([error instanceof Floodgate.RedisMissingError, error.message, await call(Floodgate.create())]))
process.exit()`
    )
    assert.strictEqual(stderr, "")
    assert.deepStrictEqual(JSON.parse(stdout), [
      true,
      "Floodgate.create: the option redis needs the package @floodgate/redis, which could not be loaded: npm install @floodgate/redis redis",
      "answer"
    ])
  })
})
