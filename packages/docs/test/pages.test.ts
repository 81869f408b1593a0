/** How pages of the repository become pages of the site. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { apiPages, markdownOf } from "../src/api.ts"
import { rewritten, summaryOf, titleOf } from "../src/links.ts"
import { moved, redirectOf } from "../src/moved.ts"
import { sidebarOf } from "../src/sidebar.ts"
import { anchorOf, sectionOf, withTabs } from "../src/tabs.ts"

const root = join(import.meta.dirname, "../../..")
const read = (file: string) => readFileSync(join(root, file), "utf8")

describe("links of a page", () => {
  const link = (text: string, repository?: string) => rewritten(text, "docs/guides/a.md", repository)

  it("lead to the pages of the site", () => {
    assert.strictEqual(link("[b](../b.md#c) and [d](#e)"), "[b](../b.md#c) and [d](#e)")
    assert.strictEqual(link("[b](../../README.md) [c](../README.md)"), "[b](../index.md) [c](../pages.md)")
    assert.strictEqual(link("[b](../../examples/README.md#x)"), "[b](../examples.md#x)")
  })

  it("lead to the repository where the file is no page, or are plain text", () => {
    assert.strictEqual(link("[`b`](../../src/b.ts)"), "`b`")
    assert.strictEqual(link("[`b`](../../src/b.ts)", "https://x.test/r"), "[`b`](https://x.test/r/blob/main/src/b.ts)")
  })

  it("stay as they are in examples, and to other sites", () => {
    const text = "```md\n[b](../../README.md)\n```\n[b](https://x.test)"
    assert.strictEqual(link(text), text)
  })
})

describe("the page of clients", () => {
  const page = "# T\n\nBefore\n\n## A\n\na\n\n## B\n\nb\n\n## C\n\nc\n"

  it("has tabs for the sections from the first to the last client, and for further ones", () => {
    const text = withTabs(page, "A", "B", [{ title: "D", text: "## D\n\nd" }])
    assert.include(text, `[{"id":"a","title":"A"},{"id":"b","title":"B"},{"id":"d","title":"D"}]`)
    for (const part of ["Before", "## A\n\na", "## B\n\nb", "## D\n\nd", "## C\n\nc"]) assert.include(text, part)
    assert.isBelow(text.indexOf("</ClientTabs>"), text.indexOf("## C\n"))
  })

  it("says which section is missing", () => {
    assert.throws(() => withTabs(page, "A", "X", []), /no sections from "A" to "X"/)
    assert.throws(() => sectionOf(page, "X"), /no section "X"/)
  })

  it("finds the sections that the site shows", () => {
    assert.include(withTabs(read("docs/clients.md"), "Anthropic's SDK", "Anything else", []), "ClientTabs")
    for (const heading of ["In an Effect app", "For clients in any language", "How it compares"]) {
      assert.isAbove(sectionOf(read("README.md"), heading).length, 200)
    }
  })
})

describe("the sidebar", () => {
  it("has the pages that docs/README.md lists, in its groups", () => {
    const groups = sidebarOf(read("docs/README.md"))
    assert.deepStrictEqual(
      groups.map(({ text }) => text),
      ["Start", "Guides", "Reference", "Figures", "Inside"]
    )
    assert.deepInclude(groups[0]!.items, { text: "Clients", link: "/clients" })
    const pages = groups.flatMap(({ items }) => items.map(({ link }) => link))
    assert.deepStrictEqual([...new Set(pages)], pages, "each page once")
  })
})

describe("a page that has moved", () => {
  it("leads to an existing page and section", () => {
    for (const [from, to] of Object.entries(moved)) {
      assert.isFalse(existsSync(join(root, "docs", from)), from)
      const [page = "", anchor] = to.split("#")
      const anchors = Array.from(
        read(page === "changelog.md" ? "CHANGELOG.md" : `docs/${page}`).matchAll(/^#+ (.*)$/gm),
        ([, heading]) => anchorOf(heading!)
      )
      if (anchor !== undefined) assert.include(anchors, anchor, to)
    }
  })

  it("keeps the anchor of its address", () => {
    const page = redirectOf("guides/a.md", "b/c.md#d")
    assert.include(page, `location.replace(\\"../b/c\\" + (location.hash || \\"#d\\"))`)
    assert.include(page, "[b/c](../b/c.md#d)")
  })
})

describe("a page of the API", () => {
  it("has the signature, the docstring and the examples of each export", () => {
    const budget = apiPages().find(({ module }) => module === "floodgate/Budget")!.text
    assert.match(budget, /## withReservation\n\n[A-Z][\s\S]*?```ts\nexport const withReservation/)
    assert.notInclude(budget, "```ts doctest")
    assert.notInclude(budget, "{@link")
  })

  it("begins with services and layers, and ends with errors", () => {
    const budget = apiPages().find(({ module }) => module === "floodgate/Budget")!.text
    const places = ["TokenBudget", "layer", "withReservation", "Options", "WaitTooLong"].map((name) =>
      budget.indexOf(`\n## ${name}\n`)
    )
    assert.notInclude(places, -1)
    assert.deepStrictEqual(
      places.toSorted((a, b) => a - b),
      places
    )
  })

  it("turns the tags of a docstring into sentences", () => {
    const doc =
      "/**\n * Says {@link x}.\n *\n * @default 5\n * @stability stable\n * @category models\n * @since 0.1.0\n */"
    assert.strictEqual(markdownOf(doc), "Says `x`.\n\n**Default**: 5\n\nStable, since 0.1.0.")
  })
})

describe("a summary", () => {
  it("is the first paragraph of a page below its title", () => {
    assert.strictEqual(summaryOf("---\na: b\n---\n# T\n\n```\nx\n```\n\nOne\ntwo.\n\nThree"), "One two.")
    assert.strictEqual(titleOf("# T\n\nx"), "T")
  })
})
