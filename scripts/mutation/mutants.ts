/**
 * The mutants of a module: each changes one operator, condition or statement. All of them are compiled into one source, in
 * which `$mutant` selects one at run time, so that the module is loaded only once.
 */
import { readFileSync } from "node:fs"
import { basename } from "node:path"
import ts from "typescript6"

export interface Mutant {
  readonly file: string
  readonly line: number
  /** The source of that line. */
  readonly code: string
  readonly was: string
  readonly is: string
}

const { SyntaxKind } = ts

const operators = new Map<ts.SyntaxKind, string>([
  [SyntaxKind.LessThanToken, "<="],
  [SyntaxKind.LessThanEqualsToken, "<"],
  [SyntaxKind.GreaterThanToken, ">="],
  [SyntaxKind.GreaterThanEqualsToken, ">"],
  [SyntaxKind.EqualsEqualsEqualsToken, "!=="],
  [SyntaxKind.ExclamationEqualsEqualsToken, "==="],
  [SyntaxKind.PlusToken, "-"],
  [SyntaxKind.MinusToken, "+"],
  [SyntaxKind.AsteriskToken, "/"],
  [SyntaxKind.SlashToken, "*"],
  [SyntaxKind.AmpersandAmpersandToken, "||"],
  [SyntaxKind.BarBarToken, "&&"],
  [SyntaxKind.PlusEqualsToken, "-="],
  [SyntaxKind.MinusEqualsToken, "+="],
  [SyntaxKind.AsteriskEqualsToken, "/="],
  [SyntaxKind.AsteriskAsteriskToken, "*"]
])

/** Operators of one operand and what replaces them: a minus and a negation are dropped. */
const unary = new Map<ts.SyntaxKind, string>([
  [SyntaxKind.ExclamationToken, ""],
  [SyntaxKind.MinusToken, ""],
  [SyntaxKind.PlusPlusToken, "--"],
  [SyntaxKind.MinusMinusToken, "++"]
])

const others = new Map([
  ["Math.min", "Math.max"],
  ["Math.max", "Math.min"]
])

/** A constant at the top of a module: it is tuned by measurement and not fixed by a rule. */
const isConstant = (node: ts.Node): boolean =>
  ts.isVariableStatement(node) &&
  ts.isSourceFile(node.parent) &&
  node.declarationList.declarations.every(
    ({ initializer }) => initializer === undefined || !ts.isArrowFunction(initializer)
  )

/** A literal number, whose minus is not an operator. */
const isNumber = (node: ts.Node): boolean => ts.isNumericLiteral(node) || node.getText() === "Infinity"

/** A change of a node: `whole` replaces it, and differs from it in `what`, which becomes `is`. */
interface Change {
  readonly what: ts.Node
  readonly is: string
  readonly whole: string
}

const changesOf = (node: ts.Node): Array<Change> => {
  if (ts.isBinaryExpression(node)) {
    const { left, operatorToken, right } = node
    // The default applies always, or never.
    if (operatorToken.kind === SyntaxKind.QuestionQuestionToken) {
      return [left, right].map((side) => ({ what: node, is: side.getText(), whole: side.getText() }))
    }
    const is = operators.get(operatorToken.kind)
    return is === undefined ? [] : [{ what: operatorToken, is, whole: `${left.getText()} ${is} ${right.getText()}` }]
  }
  if (ts.isPropertyAccessExpression(node)) {
    const is = others.get(node.getText())
    return is === undefined ? [] : [{ what: node, is, whole: is }]
  }
  if (ts.isPrefixUnaryExpression(node) && unary.has(node.operator) && !isNumber(node.operand)) {
    const is = unary.get(node.operator)! + node.operand.getText()
    return [{ what: node, is, whole: is }]
  }
  if (ts.isPostfixUnaryExpression(node)) {
    const is = node.operand.getText() + unary.get(node.operator)!
    return [{ what: node, is, whole: is }]
  }
  return []
}

const isDecided = (node: ts.Node): boolean => {
  const { parent } = node
  if (ts.isSourceFile(node)) return false
  return (
    ((ts.isIfStatement(parent) || ts.isWhileStatement(parent)) && parent.expression === node) ||
    (ts.isConditionalExpression(parent) && parent.condition === node)
  )
}

/** The mutants of a module, numbered from `first`, and its source with all of them. */
export const mutate = (path: string, first: number): { readonly mutants: Array<Mutant>; readonly text: string } => {
  const file = basename(path)
  const text = readFileSync(path, "utf8")
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const mutants: Array<Mutant> = []
  const lines = text.split("\n")
  const add = (what: ts.Node, is: string): string => {
    const { line } = source.getLineAndCharacterOfPosition(what.getStart())
    const was = what.getText().replaceAll(/\s+/g, " ")
    return `$mutant(${first - 1 + mutants.push({ file, line: line + 1, code: lines[line]!.trim(), was, is })})`
  }
  const render = (node: ts.Node): string => {
    if (isConstant(node) || ts.isTypeNode(node) || ts.isInterfaceDeclaration(node)) return node.getText()
    const alternatives = changesOf(node).map(({ is, what, whole }) => `${add(what, is)} ? (${whole}) : `)
    if (isDecided(node)) alternatives.push(...["true", "false"].map((is) => `${add(node, is)} ? ${is} : `))
    const removed = ts.isExpressionStatement(node) ? add(node, "nothing") : undefined
    let at = node.getStart()
    let result = ""
    ts.forEachChild(node, (child) => {
      result += text.slice(at, child.getStart()) + render(child)
      at = child.end
    })
    result += text.slice(at, node.end)
    if (alternatives.length > 0) return `(${alternatives.join("")}(${result}))`
    return removed === undefined ? result : `{ if (!${removed}) { ${result} } }`
  }
  return { mutants, text: text.slice(0, source.getStart()) + render(source) }
}
