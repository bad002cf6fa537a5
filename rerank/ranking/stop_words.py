"""Function words per language: articles, pronouns, prepositions, auxiliaries, question words.

Short lists on purpose. Words that carry meaning in technical text (`if`, `while`, `not`, `try`,
`except`) stay out of the English one; the pieces that an apostrophe leaves behind (`s`, `ll`,
French `l`, `qu`) are in.
"""

from __future__ import annotations

_LISTS = {
    "en": """
        a an the this that these those of to in on at by for from with into onto about as and or but
        nor so than then there here i me my we us our you your he him his she her it its they them
        their who whom whose which what when where why how is am are was were be been being do does
        did doing done have has had having will would shall should can could may might must s t d ll
        re ve m also just any some such each both
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und oder aber sondern denn dass ob
        wenn als wie ich du er sie es wir ihr mich dich sich uns euch mir dir ihm ihnen mein dein
        sein unser euer dieser diese dieses diesem diesen jener jene wer wen wem was wann wo warum
        weshalb welche welcher welches in im an am auf aus bei beim mit nach von vom vor zu zum zur
        für durch gegen ohne um über unter zwischen ist sind war waren bin bist seid wird werden
        wurde wurden worden hat haben hatte hatten habe kann können könnte soll sollen muss müssen
        darf dürfen auch noch nur schon so da dort hier man
    """,
    "fr": """
        le la les l un une des du de d et ou mais donc or ni car que qu qui quoi dont où quand
        comment pourquoi quel quelle quels quelles je j tu il elle on nous vous ils elles me m te t
        se s lui leur leurs y en ce c cet cette ces mon ma mes ton ta tes son sa ses notre nos votre
        vos à au aux dans par pour sur sous avec sans entre vers chez est es suis sommes êtes sont
        était étaient être été a ai as avons avez ont avait avaient avoir peut peuvent doit doivent
        si aussi plus très n
    """,
    "es": """
        el la los las lo un una unos unas de del al a ante con contra desde en entre hacia hasta
        para por según sin sobre tras y e o u pero sino que quien quienes cual cuales cuyo cuya qué
        quién cuál cuándo cuando dónde donde cómo como por qué yo tú él ella ello nosotros vosotros
        ellos ellas usted ustedes me te se nos os le les mi mis tu tus su sus nuestro nuestra
        este esta estos estas ese esa esos esas esto eso aquel aquella es son era eran fue fueron
        ser sido soy eres somos está están estar ha han he hemos había haber hay puede pueden debe
        deben si también más muy ya
    """,
    "it": """
        il lo la i gli le l un uno una di a da in con su per tra fra del dello della dei degli delle
        dell al allo alla ai agli alle all dal dallo dalla dai dagli dalle nel nello nella nei negli
        nelle nell sul sullo sulla sui sugli sulle e ed o ma se che chi cui quale quali quando dove
        come perché cosa io tu lui lei noi voi loro mi ti si ci vi ne mio mia tuo tua suo sua nostro
        vostro questo questa questi queste quello quella quelli quelle è sono era erano essere stato
        stata sei siamo ha hanno ho hai abbiamo aveva avere può possono deve devono anche più molto
    """,
    "pt": """
        o a os as um uma uns umas de do da dos das em no na nos nas ao aos à às por pelo pela pelos
        pelas para com sem sob sobre entre até desde e ou mas nem que quem qual quais cujo cuja
        quando onde como porque porquê por eu tu ele ela nós vós eles elas você vocês me te se lhe
        lhes meu minha teu tua seu sua seus suas nosso nossa este esta estes estas esse essa isto
        isso aquele aquela é são era eram foi foram ser sido sou somos está estão estar há tem têm
        tinha ter pode podem deve devem também mais muito já
    """,
    "nl": """
        de het een en of maar want dat die dit deze wat wie wanneer waar waarom hoe welke welk ik je
        jij u hij zij ze wij we jullie mij me jou hem haar ons hen hun mijn jouw zijn uw onze in op
        aan van voor met bij naar uit over onder tussen door om tot tegen zonder te ten ter als dan
        is ben bent was waren wordt worden werd werden geweest heeft heb hebben had hadden kan
        kunnen kon zal zullen zou zouden moet moeten mag mogen ook nog al er daar hier zo
    """,
    "ru": """
        и а но или да в во на с со к ко о об от до из у за по под над при про для без через между
        что чтобы как если когда где куда почему зачем кто который которая которое которые какой
        какая какие чей я ты он она оно мы вы они меня тебя его её ее нас вас их мне тебе ему ей нам
        вам им мой твой наш ваш свой этот эта это эти тот та то те себя себе быть был была было были
        есть будет будут бы же ли уже ещё еще только также так там тут здесь
    """,
    "sv": """
        en ett den det de och eller men att som om när var vart varför hur vem vilken vilket vilka
        vad jag du han hon vi ni man mig dig honom henne oss er dem min mitt mina din ditt dina sin
        sitt sina vår vårt våra deras hans hennes denna detta dessa i på av till från med för vid
        under över mellan utan genom efter mot hos är var vara varit blir bli blev har ha hade kan
        kunde ska skall skulle måste får också så där här då än
    """,
    "da": """
        en et den det de og eller men at som der om når hvor hvorfor hvordan hvem hvilken hvilket
        hvilke hvad jeg du han hun vi i man mig dig ham hende os jer dem min mit mine din dit dine
        sin sit sine vores jeres deres hans hendes denne dette disse på af til fra med for ved under
        over mellem uden gennem efter mod hos er var være været bliver blive blev har have havde kan
        kunne skal skulle må måtte vil ville også så her da end
    """,
    "no": """
        en et ei den det de og eller men at som om når hvor hvorfor hvordan hvem hvilken hvilket
        hvilke hva jeg du han hun vi dere man meg deg ham henne oss dem min mitt mine din ditt dine
        sin sitt sine vår vårt våre deres hans hennes denne dette disse i på av til fra med for ved
        under over mellom uten gjennom etter mot hos er var være vært blir bli ble har ha hadde kan
        kunne skal skulle må måtte vil ville også så der her da enn
    """,
    "fi": """
        ja tai mutta sekä eli että jos kun kuin koska vaikka joka jotka jonka mikä mitkä mitä missä
        milloin miksi miten kuka ketkä kenen minä sinä hän me te he minun sinun hänen meidän teidän
        heidän minua sinua häntä meitä teitä heitä tämä tuo se nämä nuo ne tämän tuon sen niiden
        tässä siinä siellä täällä on ovat oli olivat olla ollut olen olet olemme olette ole voi
        voivat myös vielä vain jo niin
    """,
}

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split()) for language, words in _LISTS.items()
}
