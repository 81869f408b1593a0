import { assert, describe, it } from "@effect/vitest"
import { StoreError } from "floodgate/BudgetStore"
import { explained } from "../../src/terminal/redis.ts"

describe("the error of a store in Redis", () => {
  const said = (cause: Error) => explained("redis://user:secret@127.0.0.1:6379")(new StoreError({ cause }))

  it("says what to install if there is no client, which is not a fault of the network", () => {
    const missing = Object.assign(new Error("Cannot find package 'ioredis'"), { code: "ERR_MODULE_NOT_FOUND" })
    const { exitCode, message } = said(
      new Error("no client is installed: npm install redis, or npm install ioredis", { cause: missing })
    )
    assert.strictEqual(
      message,
      "a budget in Redis needs a client, and no client is installed: npm install redis, or npm install ioredis"
    )
    assert.strictEqual(exitCode, 2)
  })

  it("says what is wrong with the server, without the password", () => {
    const { exitCode, message } = said(Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" }))
    assert.strictEqual(
      message,
      "no Redis answers at redis://127.0.0.1:6379 (ECONNREFUSED); start one there, or correct --redis"
    )
    assert.strictEqual(exitCode, 4)
  })
})
