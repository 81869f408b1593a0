import { assert, describe, it } from "@effect/vitest"
import { StoreUnavailable } from "floodgate/BudgetStore"
import { type Job, Outbox } from "../../src/redis/outbox.ts"

const job = (name: string, more: Partial<Job> = {}): Job => ({
  operation: () => [name],
  replied: () => {},
  away: () => false,
  ...more
})
const names = (outbox: Outbox) => outbox.next(false)?.operations.map(([name]) => name)
const error = new StoreUnavailable({ pool: "p", cause: "gone" })

describe("outbox", () => {
  it("says in order what is still worth saying, and the same until it was heard", () => {
    const outbox = new Outbox()
    outbox.add(job("b"))
    outbox.add(job("no more", { operation: () => undefined }))
    outbox.addFirst(job("a"))
    const request = outbox.next(true)
    outbox.add(job("c"))
    assert.deepStrictEqual(request!.operations, [["a"], ["b"]])
    assert.strictEqual(outbox.next(true), request)
    outbox.conclude()
    assert.deepStrictEqual(names(outbox), ["c"])
    assert.strictEqual(outbox.next(true)!.seq, request!.seq + 1)
  })

  it("says it as it is by then when it is sent again, and gives a sign of life in place of what is said no more", () => {
    const outbox = new Outbox()
    let now = 1
    outbox.add(job("gone soon", { operation: () => (now === 1 ? ["gone soon"] : undefined) }))
    outbox.add(job("a", { operation: () => ["a", now] }))
    const request = outbox.next(false)!
    assert.deepStrictEqual(request.operations, [["gone soon"], ["a", 1]])
    now = 2
    assert.strictEqual(outbox.next(false), request)
    assert.deepStrictEqual(request.operations, [["beat"], ["a", 2]])
  })

  it("says one by one what fails together, and drops what fails alone", () => {
    const outbox = new Outbox()
    const dropped: Array<string> = []
    for (const name of ["a", "b", "c"]) outbox.add(job(name, { dropped: () => dropped.push(name) }))
    assert.deepStrictEqual(names(outbox), ["a", "b", "c"])
    outbox.giveUp()
    outbox.add(job("d"))
    outbox.add(job("e"))
    assert.deepStrictEqual(names(outbox), ["a"])
    outbox.conclude()
    assert.deepStrictEqual(names(outbox), ["b"])
    outbox.giveUp()
    assert.deepStrictEqual(names(outbox), ["c"])
    outbox.conclude()
    assert.deepStrictEqual(names(outbox), ["d", "e"])
    assert.deepStrictEqual(dropped, ["b"])
  })

  // Regression: a settlement that the end of a waiting call had caused was lost.
  it("keeps what is said by those who hear that nobody answers", () => {
    const outbox = new Outbox()
    outbox.add(job("waits", { away: () => (outbox.add(job("settles")), true) }))
    outbox.add(job("stays"))
    outbox.away(error, true)
    assert.deepStrictEqual(names(outbox), ["stays", "settles"])
  })
})
