"""Small files of graded answers in each public form."""

BEETLE_HEADER = "id\tquestion_id\tquestion\treference_answer\tstudent_answer\tlabel_5way"
BEETLE = [
    BEETLE_HEADER,
    "a1\tQ1\tWhy is the bulb off?\tThere is a gap\tit's a \"gap\tcorrect",
    "a2\tQ1\tWhy is the bulb off?\tThere is a gap\tno idée\tnon_domain",
    "a3\tQ2\tWhy?\tA closed path\t\tirrelevant",
]
XML = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<question qtype="Q_EXPLAIN" id="Q1" module="FaultFinding" stype="EVALUATE">
  <questionText>Why is the bulb
    off?</questionText>
  <referenceAnswers>
    <referenceAnswer category="GOOD" id="r1">a gap &amp; nothing else</referenceAnswer>
    <referenceAnswer category="BEST" id="r2">There is a gap</referenceAnswer>
    <referenceAnswer category="BEST" id="r3">the path is open</referenceAnswer>
  </referenceAnswers>
  <studentAnswers>
    <studentAnswer count="1" answerMatch="r1" id="a1" accuracy="partially_correct_incomplete">x &lt; y</studentAnswer>
    <studentAnswer count="1" id="a2" accuracy="correct">a gap</studentAnswer>
    <studentAnswer count="1" id="a3"></studentAnswer>
  </studentAnswers>
</question>
"""
MOHLER = [
    ",Unnamed: 0,id,question,desired_answer,student_answer,score_me,score_other,score_avg,extra",
    '0,0,1.1,What is a prototype?,A model,"High risk, ""quoted"",\nin two lines",4,3,3.5,0.1',
    "1,1,1.1,What is a prototype?,A model,#NAME?,5,5,5,0.2",
    "2,2,1.2,What is a stack?,A list,a heap,0,1,0.5,0.2",
    "3,3,1.2,What is a stack?,A list,a list,2,2,2.25,0.2",
]
ASAP = [
    "Id\tEssaySet\tScore1\tScore2\tEssayText",
    '1\t1\t1\t1\tYou need "to know how much vinegar',
    "2\t1\t3\t2\tthe mass",
    "3\t2\t0\t0\tplastic",
]
ASAP_PROMPTS = ["EssaySet\tQuestion\tReference", "1\tWhat else do you need?\tThe mass", "2\tWhich plastic stretches?\t"]


def text(lines: list[str], end: str = "\n") -> str:
    return end.join(lines) + end
