/** Random histories of a fleet keep its laws; `npm run storms` plays more of them. */
import { assert, describe, it } from "@effect/vitest"
import { sized, some } from "../support/size.ts"
import * as Storm from "./storm.ts"
import * as World from "./world.ts"

const redis = await World.redis()

describe("a fleet in a storm", { timeout: 180_000 }, () => {
  for (const isLossyStore of [false, true]) {
    it(`of crashes, cuts, delays, lost messages and clocks that are set${isLossyStore ? ", whose store forgets" : ""}`, () => {
      for (let seed = 1; seed <= sized(4, 30); seed++) {
        const complaint = Storm.complaint(Storm.plan(seed, isLossyStore), redis)
        assert.isUndefined(complaint, complaint)
      }
    })
  }

  for (const isLossyStore of [false, true]) {
    it(`of callers that give up, suspended processes, late replies and changed limits${isLossyStore ? ", whose store forgets" : ""}`, () => {
      for (let seed = 1; seed <= sized(2, 15); seed++) {
        const complaint = Storm.complaint(Storm.rougher(seed, isLossyStore), redis)
        assert.isUndefined(complaint, complaint)
      }
    })
  }

  it.each(
    some(
      [
        ["the first commit of a process is in doubt", 700_318, false],
        ["it waits for it beside the part of a process that is gone", 3_015, true],
        ["what a dead process held is given back", 2_088, false],
        ["a call that needs the whole bucket waits for it among small ones", 1_040, true],
        ["a newcomer does not know how long somebody is dead", 165, true],
        ["a process is cut off while another one starts from an empty store", 854, true],
        ["processes start from an empty store while others leave it", 1_443, true],
        ["a process has seen that the store is empty, and loses its next message", 1_385, true],
        ["a process that waits has seen that the store is empty", 1_725, true],
        ["a process leaves while another one is cut off", 2_754, true],
        ["a commit comes late, and a process that starts goes by its time", 3_082, false],
        ["a commit was wiped that only others have seen", 3_762, true],
        ["messages take longer than a process may keep others waiting", 6_432, false],
        ["a caller came while its process decided alone, and is served among all", 17_392, false],
        ["a process knows what a restored store has lost, and has nothing else to say", 5_280, true],
        ["a commit comes late, and all others go back to its time", 364_849, false],
        ["a process that hears old states alone does not know that the pool's time has gone on", 67_264, false],
        [
          "a store has lost a commit that only others have heard of, and the lease of its process is over",
          77_823,
          true
        ],
        ["a store is wiped before an outage, and a process has died before that", 207_279, true],
        ["a store is restored in a long outage in which all went alone", 350_688, true],
        ["a process that is idle does not know that a commit was stored, and others bring it back", 612_423, true],
        ["a message comes a second time, to a store that was wiped meanwhile", 372_873, true],
        ["a call has ended that the others still count when they fill an empty store", 909_875, true],
        ["the clock of Redis is set back while it is away, and a process has left", 324_834, true],
        [
          "a call that is larger than the bucket goes before the store forgets it, and another one after that",
          90_039,
          true
        ]
      ] as const,
      8
    )
  )("is well where %s", (_, seed, isLossyStore) => {
    const complaint = Storm.complaint(Storm.plan(seed, isLossyStore), redis)
    assert.isUndefined(complaint, complaint)
  })

  it.each(
    some(
      [
        ["limits change in a process that has not reached the store yet", 18, false],
        ["a newcomer has other limits, and nothing was sent but by a process that is cut off", 1516, false],
        ["a process stood still while a reply was on its way", 617, false],
        ["a process found the store empty, and another one was there first to put back what it knew", 531, true]
      ] as const,
      8
    )
  )("is well where %s", { tags: "full" }, (_, seed, isLossyStore) => {
    const complaint = Storm.complaint(Storm.rougher(seed, isLossyStore), redis)
    assert.isUndefined(complaint, complaint)
  })

  it("is the same for the same seed", { tags: "full" }, () => {
    const once = Storm.run(Storm.plan(7), redis)
    assert.deepStrictEqual(Storm.run(Storm.plan(7), redis).log, once.log)
  })
})
