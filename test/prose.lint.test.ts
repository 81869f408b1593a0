/** Holds how much there is to read, and how long its sentences are. The numbers may only shrink. */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { withoutFences } from "./support/links.ts"
import { root } from "./support/modules.ts"

const read = (file: string): string => readFileSync(join(root, file), "utf8")

/** The pages that readers open. Tables of figures, the changelog and the generated reference of the API are beside them. */
const pages = [
  "README.md",
  ...["docs", "docs/guides"].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((file) => file.endsWith(".md") && file !== "api.md")
      .map((file) => `${folder}/${file}`)
  )
]

/** All words of a page, also in tables and programs. */
const wordsOf = (page: string): number =>
  read(page)
    .split(/\s+/)
    .filter((word) => word !== "").length

/** The sentences of a page's prose. Code and the targets of links are one word, and an item of a list ends a sentence. */
const sentencesOf = (page: string): ReadonlyArray<string> =>
  withoutFences(read(page))
    .replaceAll(/<!--[\s\S]*?-->/g, "")
    .split(/\n\s*\n|\n(?=\s*(?:- |\d+\. ))/)
    .filter((block) => !/^\s*[#|<]/.test(block))
    .flatMap((block) =>
      block
        .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
        .replaceAll(/`[^`]*`/g, "x")
        .replaceAll(/\s+/g, " ")
        .split(/(?<=[.!?:;])\s+(?=[A-Z"x*])/)
    )

const longIn = (page: string): ReadonlyArray<string> =>
  sentencesOf(page).filter((sentence) => sentence.trim().split(" ").length > 25)

/** How many sentences of more than 25 words a page may have; all others have none. */
const long: Readonly<Record<string, number>> = {}

describe("the pages", () => {
  it("are fifteen, with the README and the list of all", () => {
    assert.isAtMost(pages.length, 17, "say it on one of the pages that exist, and take out what it makes double")
  })

  it("have no more words than before", () => {
    const words = pages.reduce((sum, page) => sum + wordsOf(page), 0)
    assert.isAtMost(words, 52_278, "shorten what is there before adding to it; the aim is 45,000")
  })

  it("have a README of at most 120 lines", () => {
    assert.isAtMost(read("README.md").trimEnd().split("\n").length, 120)
  })

  it("begin with their subject", () => {
    assert.deepStrictEqual(
      pages.filter((page) => read(page).includes("After this page")),
      []
    )
  })

  it("have no sentence of more than 25 words but those that are counted here", () => {
    for (const page of pages) {
      const found = longIn(page)
      assert.isAtMost(found.length, long[page] ?? 0, `${page}: make two sentences of one of\n${found.join("\n")}`)
    }
  })
})
