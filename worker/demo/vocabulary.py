"""Words for made-up referrals: the API's documented values, and invented companies and people."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where a customer is; its local day begins at `midnight`, an hour and minute of UTC."""

    country: str
    region: str
    state: str
    city: str
    postal_code: str
    currency: str
    midnight: tuple[int, int]
    locale: str


PRODUCTS = (
    *("Azure", "EnterpriseMobilityAndSecurity", "Exchange", "DeveloperTools", "Dynamics365Business"),
    *("Dynamics365Enterprise", "DynamicsAX,GP,NAV,SL", "Microsoft365", "Office", "PowerBI", "Project", "SharePoint"),
    *("SkypeForBusiness", "Surface", "SurfaceHub", "SQL", "Teams", "Visio", "Windows", "Yammer"),
)
SERVICES = (
    *("ConsultingAndProfessional", "CustomSolution(ISV)", "DeploymentOrMigration", "Hardware", "Integration"),
    *("IPServices(ISV)", "LearningAndCertification", "Licensing", "ManagedServices", "ProjectServices"),
)
INDUSTRIES = (
    *("Agriculture, Forestry, & Fishing", "Communications & Media", "Education", "Financial Services", "Government"),
    *("Healthcare", "Hospitality", "Manufacturing", "Power & Utilities", "Public Safety and National Security"),
    *("Retail & Consumer Goods", "Services", "Travel & Transportation", "Wholesale & Distribution"),
)
SOLUTIONS = (
    *("AdvancedAnalytics", "ApplicationIntegration", "ArtificialIntelligence", "AzureStack", "BackupDisasterRecovery"),
    *("BigData", "Chatbot", "CloudDatabaseMigration", "CloudMigration", "CognitiveServices", "Containers"),
    *("DataWarehouse", "DevOps", "Dynamics365forSales", "EnterpriseBusinessIntelligence", "HybridStorage"),
    *("IdentityandAccessManagement", "InternetofThings", "MachineLearning", "Networking", "SAPonAzure"),
    *("ServerlessComputing", "SQLServerUpgrade", "ThreatProtection", "WebDevelopment"),
)
SIZES = (
    *("1to50employees", "51to500employees", "Morethan500employees", "1to9employees", "10to50employees"),
    *("51to250employees", "251to1000employees", "1001to5000employees", "5001to10000employees"),
    *("10001to20000employees", "Morethan20000employees"),
)
ASSISTANCE = (
    *("GeneralOrOther", "CustomerTechnicalArchitecture", "ProofOfConceptOrDemo", "QuotesOrLicensing"),
    *("PostSalesCustomerSuccess", "WorkloadSpecificValueProposition"),
)
STAGES = ("Qualify", "Develop", "Propose", "Close", "10", "20", "40", "60", "80", "100")
PLAYS = ("Migrate and modernise", "Build intelligent apps", "Unify data", "Threat defence", "Modern endpoints")
AREAS = ("CloudAndAIPlatforms", "AIBusinessSolutions", "Security")
REASONS = (
    *("Customer chose another supplier", "No budget this year", "Not a fit for our services", "No answer"),
    *("Duplicate of another deal", "Project postponed", "3", "7"),
)
TAGS = ("priority", "renewal", "public sector", "event-spring", "needs-architect", "nurture")
CALLS = ("Get it now", "Free trial", "Test drive", "Contact me")
ORIGINS = ("AppSource", "Azure Marketplace", "Azure portal")

COMPANY_FIRST = (
    *("Alder", "Birch", "Bluewater", "Brambleton", "Cindermoor", "Copperleaf", "Driftwood", "Eastmarch", "Fernhollow"),
    *("Glasswing", "Greyfield", "Harrowgate", "Ironvale", "Juniper", "Kestrel", "Larkmead", "Lumenfall", "Mistral"),
    *("Northgale", "Oakridge", "Pinebrook", "Quillon", "Ravenholt", "Silverfen", "Tamarack", "Umberland", "Valewick"),
    *("Windermark", "Yarrow", "Zephyrine", "Côte Claire", "Zażółć", "Österby", "北星", "Łęgowo"),
)
COMPANY_MIDDLE = (
    "",
    "",
    "",
    " &amp; Sons",
    " & Vale",
    " &#39;Nova&#39;",
    " United",
    " Pacific",
    " &amp; Co",
)
COMPANY_LAST = (
    *("Logistics", "Foods", "Robotics", "Clinics", "Energy", "Textiles", "Credit Union", "Airways", "Shipping"),
    *("Schools Trust", "Insurance", "Retail Group", "Steelworks", "Vineyards", "Pharma", "Rail", "Studios", "Water"),
)
FIRST_NAMES = (
    *("Ada", "Bruno", "Chidi", "Dilnoza", "Émile", "Farah", "Goran", "Hye-jin", "Inês", "Jonas", "Keiko", "Lucía"),
    *("Mbali", "Nils", "Oksana", "Priya", "Quentin", "Rosa", "Søren", "Tariq", "Una", "Viktor", "Wanjiru", "Zoë"),
)
LAST_NAMES = (
    *("Abara", "Bergqvist", "Castellan", "Dworzak", "Eskelund", "Fontaine-Roy", "Gallardo", "Hoekstra", "Ito"),
    *("Jovanović", "Kimani", "Lindqvist", "Moreau", "Nakamura", "O'Shea", "Petrov", "Quispe", "Rahman", "Szabó"),
)
TITLES = ("CIO", "Head of Infrastructure", "Procurement Lead", "IT Director", "Data Platform Owner", "Architect", None)
STREETS = (
    "Harbour Street",
    "Mill Lane",
    "Rue des Tilleuls",
    "Ringstrasse",
    "Avenida Central",
    "Station Road",
)
PLACES = tuple(
    Place(*row)
    for row in (
        ("US", "United States", "WA", "Seattle", "98101", "USD", (8, 0), "en-US"),
        ("US", "United States", "TX", "Austin", "73301", "USD", (6, 0), "en-US"),
        ("GB", "UK", "England", "Leeds", "LS1 4AP", "GBP", (0, 0), "en-GB"),
        ("DE", "Germany", "Hessen", "Kassel", "34117", "EUR", (23, 0), "de-DE"),
        ("FR", "France", "Rhône", "Lyon", "69002", "EUR", (23, 0), "fr-FR"),
        ("IN", "India", "Karnataka", "Bengaluru", "560001", "INR", (18, 30), "en-IN"),
        ("JP", "Japan", "Tokyo", "千代田区", "100-0001", "JPY", (15, 0), "ja-JP"),
        ("BR", "Latin America", "SP", "São Paulo", "01000-000", "BRL", (3, 0), "pt-BR"),
        ("SE", "Western Europe", "", "Göteborg", "411 03", "SEK", (23, 0), "sv-SE"),
        ("PL", "CEE", "Mazowieckie", "Łódź", "90-001", "PLN", (23, 0), "pl-PL"),
        ("AE", "MEA", "", "Dubai", "", "AED", (20, 0), "ar-AE"),
        ("AU", "ANZ", "NSW", "Newcastle", "2300", "AUD", (14, 0), "en-AU"),
    )
)
NOTES = (
    "Customer wants to move its on-premises data warehouse before the lease of the data centre ends.",
    "Looking for a partner who can run a two-week assessment and present the findings to the board.",
    "Follow-up of the trade-fair talk; the budget is approved, the decision is expected this quarter.",
    "Existing contract ends soon. They compare three suppliers and ask for references in their industry.",
    'Please call before noon. The customer said: "no slides, show us the thing running".',
    "Needs single sign-on for 1,200 seasonal workers & kiosk devices in 40 shops.",
    "Seeks a managed service with a named engineer; current backlog is about 300 tickets.\nSee the attached list.",
    "Migration of six SQL servers, reporting in near real time, licences to be optimised.",
)
