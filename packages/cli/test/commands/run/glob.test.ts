import { assert, describe, it } from "@effect/vitest"
import { matcher } from "../../../src/commands/run/glob.ts"

const matches = (pattern: string, path: string): boolean => matcher(pattern)!(path)

describe("a pattern", () => {
  for (const [pattern, yes, no] of [
    ["*.md", ["a.md", "deep/er/a.md"], ["a.mdx", "md", "a.md.txt/b"]],
    ["drafts", ["drafts", "drafts/a.md", "a/drafts/b.md"], ["drafts.md", "my-drafts/a.md"]],
    ["drafts/", ["drafts/a.md"], ["drafts.md"]],
    ["docs/*.md", ["docs/a.md"], ["docs/b/a.md", "more/docs/a.md"]],
    ["docs/**/*.md", ["docs/a.md", "docs/b/c/a.md"], ["a.md"]],
    ["**/test/**", ["test/a", "a/test/b/c"], ["test.md", "a/testing/b"]],
    ["./a.md", ["b/a.md", "a.md"], ["a.mdx"]],
    ["/docs/a.md", ["docs/a.md"], ["x/docs/a.md"]],
    ["?.txt", ["a.txt"], ["ab.txt", "/.txt"]],
    ["[ab].txt", ["a.txt", "b.txt"], ["c.txt"]],
    ["[!ab].txt", ["c.txt"], ["a.txt"]],
    ["*.{md,txt}", ["a.md", "a.txt"], ["a.json"]],
    ["*.{md,{txt,rst}}", ["a.md", "a.rst"], ["a.json"]],
    ["{a}.md", ["{a}.md"], ["a.md"]],
    ["*.env", [".env", "a.env"], ["env"]],
    ["?.md", ["😀.md"], [".md"]],
    ["!a.md", ["!a.md"], ["a.md", "b.md"]],
    ["[z-a].md", [], ["z.md", "a.md"]],
    ["a+b(c).txt", ["a+b(c).txt"], ["aab(c).txt", "abc.txt"]],
    ["[unclosed", ["[unclosed"], ["u"]],
    ["{unclosed", ["{unclosed"], ["unclosed"]],
    ["über 漢.md", ["über 漢.md"], ["uber.md"]]
  ] as const) {
    it(`"${pattern}" matches as documented`, () => {
      for (const path of yes) assert.isTrue(matches(pattern, path), path)
      for (const path of no) assert.isFalse(matches(pattern, path), path)
    })
  }

  it("that could match in very many ways takes no longer than any other", () => {
    // Regression: patterns were regular expressions, whose time doubled with each star.
    assert.isFalse(matches("*a".repeat(30), `${"a".repeat(100)}b`))
  })

  it("that is empty, or the folder itself, is invalid", () => {
    for (const pattern of ["", "/", "./", "//"]) assert.isUndefined(matcher(pattern), pattern)
  })
})
